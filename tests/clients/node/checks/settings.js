// What an app's settings do, and changing them while clients are there.
import fs from 'node:fs'
import { appToml, keyOf, secretOf } from '../lib/cluster.js'
import { holds, same, until } from '../lib/wait.js'

const closedWith = async (raw, code) => {
  await until(`it is closed with ${code}`, () => raw.closed)
  same('the code', raw.closed.code, code)
}

/** Has settled for good: it says something after `seconds` and is answered. */
const staysFor = async (raw, seconds) => {
  const end = Date.now() + seconds * 1000
  await until(`${seconds} s have passed`, () => Date.now() > end || raw.closed)
  same('closed', raw.closed, null)
  await raw.settled()
}

export default [
  {
    name: 'activity_timeout and pong_timeout: who does not answer is closed with 4201',
    async run(t) {
      const mute = await t.raw({ app: 'brisk', autoPong: false })
      same('activity_timeout', JSON.parse(mute.frames[0].data).activity_timeout, 1)
      const alive = await t.client({ app: 'brisk' }).connected()
      await closedWith(mute, 4201)
      const end = Date.now() + 3000
      await until('three seconds pass', () => Date.now() > end)
      same('the states of pusher-js', alive.states.filter((state) => state !== 'connected'), [])
    },
  },
  {
    name: 'authorized_within: who shows no signature is closed with 4009',
    async run(t) {
      const stranger = await t.raw({ app: 'strict' })
      stranger.say('pusher:subscribe', { channel: 'news', auth: '' })
      const [member, user] = [await t.raw({ app: 'strict' }), await t.raw({ app: 'strict' })]
      const channel = t.name('private-strict')
      member.say('pusher:subscribe', { channel, ...t.sdk('strict').authorizeChannel(member.socketId, channel) })
      user.say('pusher:signin', t.sdk('strict').authenticateUser(user.socketId, { id: 'ann' }))
      await closedWith(stranger, 4009)
      for (const raw of [member, user]) await staysFor(raw, 2)
    },
  },
  {
    name: 'connections_max: more get 4004, until a client leaves',
    async run(t) {
      const [first, second] = [await t.raw({ app: 'small' }), await t.raw({ app: 'small' })]
      await closedWith(await t.raw({ app: 'small' }), 4004)
      first.close()
      await until('there is room again', async () => (await t.raw({ app: 'small' })).socketId)
      await second.settled()
    },
  },
  {
    name: 'tls_only: 4000 without TLS',
    async run(t) {
      await closedWith(await t.raw({ app: 'sealed' }), 4000)
    },
  },
  {
    name: 'origins: 4009 for pages of others',
    async run(t) {
      for (const origin of ['https://www.example.com', 'http://localhost:3000']) {
        holds(`${origin} is let in`, (await t.raw({ app: 'homely', origin })).socketId)
      }
      for (const origin of ['https://example.org', 'http://www.example.com', 'https://www.example.com.evil.org']) {
        await closedWith(await t.raw({ app: 'homely', origin }), 4009)
      }
    },
  },
  {
    name: 'path_prefix: in front of both, or stripped',
    async run(t) {
      const channel = t.name('prefixed')
      const client = t.client({ app: 'behind', wsPath: '/sockets' })
      await client.subscribed(channel)
      holds('without it too', (await t.raw({ app: 'behind' })).socketId)
      await closedWith(await t.raw({ app: 'behind', prefix: '/elsewhere' }), 4001)
      const body = JSON.stringify({ name: 'e', channel, data: '{"n":1}' })
      for (const signed of ['/apps/behind/events', '/sockets/apps/behind/events']) {
        const query = t.sdk('behind').createSignedQueryString({ method: 'POST', path: signed, body })
        const answer = await fetch(`http://127.0.0.1:${t.apart.port}/sockets/apps/behind/events?${query}`, { method: 'POST', body })
        same(`signed over ${signed}`, [answer.status, await answer.text()], [200, '{}'])
      }
      await until('both arrive', () => client.got('e', channel).length === 2)
    },
  },
  {
    name: 'apps come, change their keys, are disabled and go while the gateways run',
    async run(t) {
      const { config, gateways } = await t.fresh(t.cluster.gateways.length)
      const original = fs.readFileSync(config, 'utf8')
      const write = (more) => fs.writeFileSync(config, original + more)
      const stays = await t.client().connected()
      const everywhere = (options, code) => until(`all gateways: ${code ?? 'let in'}`, async () => {
        const raws = await Promise.all(gateways.map((at) => t.raw({ at, app: 'later', ...options })))
        await until('settled', () => raws.every((raw) => raw.socketId || raw.closed))
        const fits = raws.every((raw) => (code ? raw.closed?.code === code : raw.socketId))
        for (const raw of raws) raw.close()
        return fits
      })
      await everywhere({}, 4001)
      write(appToml('later'))
      await everywhere({})
      const old = await t.client({ app: 'later' }).connected()
      const both = appToml('later', '', 'later-key-2') + `[[apps.keys]]\nkey = "${keyOf('later')}"\nsecret = "${secretOf('later')}"\n`
      write(both)
      await everywhere({ key: 'later-key-2' })
      await everywhere({})
      same('a client with the former key', old.states.includes('disconnected'), false)
      write('[[apps]]\nid = "broken')
      write(appToml('later', 'enabled = false'))
      await until('its client is closed', () => old.state === 'disconnected')
      same('the code', old.errors.at(-1)?.code, 4003)
      await everywhere({}, 4003)
      write('')
      await everywhere({}, 4001)
      same("another app's client", stays.states.filter((state) => state !== 'connected'), [])
    },
  },
]
