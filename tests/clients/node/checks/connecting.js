// Coming in, being refused, staying.
import { VERSIONS } from '../lib/client.js'
import { holds, same, until } from '../lib/wait.js'

const checks = []
for (const version of Object.keys(VERSIONS)) {
  checks.push({
    name: `${version} connects`,
    async run(t) {
      const client = await t.client({ version }).connected()
      holds('a socket_id of two numbers', /^\d+\.\d+$/.test(client.socketId), client.socketId)
      const [first] = client.frames
      same('nothing came before it was asked for', first, undefined)
    },
  })
  for (const [what, key, code] of [['an unknown key', 'no-such-key', 4001], ['a disabled app', 'closed-key', 4003]]) {
    checks.push({
      name: `${version} with ${what} is closed with ${code} and stops`,
      async run(t) {
        const client = t.client({ version, key })
        await until('pusher-js stops', () => client.state === 'disconnected')
        same('the error codes that it got', [...new Set(client.errors.map((error) => error.code))], [code])
        same('further attempts', client.states.filter((state) => state === 'connecting'), [])
      },
    })
  }
  checks.push({
    name: `${version} gets a pong when it pings`,
    async run(t) {
      const client = await t.client({ version, activityTimeout: 1000, pongTimeout: 5000 }).connected()
      const pong = await client.gets('pusher:pong')
      same('its data', pong.data, {})
      same('the state after', client.state, 'connected')
    },
  })
}

export default checks
