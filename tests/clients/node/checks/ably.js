// Ably's own library publishes over REST, in MessagePack and in JSON; Pusher clients hear. Its realtime protocol is not
// spoken here.
import Ably from 'ably'
import { holds, same, until } from '../lib/wait.js'
import { keyOf, secretOf } from '../lib/cluster.js'

const APP = 'ably'

const rest = (t, secret, useBinaryProtocol) => new Ably.Rest({
  key: `${keyOf(APP)}:${secret}`, restHost: '127.0.0.1', tlsPort: t.at().tls, fallbackHosts: [], useBinaryProtocol, logLevel: 0,
})

export default [['MessagePack', true], ['JSON', false]].map(([name, binary]) => ({
  name: `Ably's library for Node, in ${name}: publish, several at once, a refusal`,
  settings: ['one'],
  async run(t) {
    const client = await t.client({ app: APP, user: 'ann' }).connected()
    const orders = t.name(`private-${name}`)
    await client.subscribed(orders)
    const channel = rest(t, secretOf(APP), binary).channels.get(orders.replace('private-', 'private:'))
    await channel.publish('shipped', { id: 1 })
    await channel.publish([{ name: 'shipped', data: { text: 'h\u00e9llo \u2615' } }, { name: 'shipped', data: 'text' }])
    await until('three events arrive', () => client.events(orders).length >= 3)
    same('what came', client.events(orders), [['shipped', { id: 1 }], ['shipped', { text: 'h\u00e9llo \u2615' }], ['shipped', 'text']])
    const refused = await rest(t, 'wrong-secret-of-nobody', binary).channels.get('x').publish('e', 'x').then(() => null, (error) => error)
    holds('a refusal with Ably\'s code', refused?.code === 40101 && refused.statusCode === 401, String(refused))
  },
}))
