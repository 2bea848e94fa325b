// The backend's library for Node.
import { fence } from '../lib/client.js'
import { keyOf, secretOf } from '../lib/cluster.js'
import { fetched } from '../lib/sdk.js'
import { fails, holds, same, until } from '../lib/wait.js'

const body = async (answer) => (await answer).json()

/** Two subscribers at different gateways. */
async function two(t, channel) {
  const clients = [t.client({ at: t.at(0), user: 'ann' }), t.client({ at: t.at(1), user: 'bob' })]
  for (const client of clients) await client.subscribed(channel)
  return clients
}

/** A refusal: its status, and a sentence that a person reads in a log. */
async function refused(what, promise, status, sentence) {
  const error = await fails(what, promise)
  same(`${what}: the status`, error.status, status)
  holds(`${what}: one sentence that fits ${sentence}`, sentence.test(error.body) && error.body.length < 400 && !error.body.includes('<'), error.body)
}

export default [
  {
    name: 'trigger to one channel and to several',
    async run(t) {
      const names = ['a', 'b', 'private-c'].map((name) => t.name(name))
      const [one, other] = [t.client({ at: t.at(0) }), t.client({ at: t.at(1) })]
      for (const client of [one, other]) for (const name of names) await client.subscribed(name)
      same('the answer', await body(t.sdk().trigger(names[0], 'single', { n: 1 })), {})
      same('the answer for several', await body(t.sdk().trigger(names, 'many', 'plain text')), {})
      for (const client of [one, other]) {
        for (const name of names) same('the data', (await client.gets('many', name)).data, 'plain text')
        await client.gets('single', names[0])
        same('copies', client.got('many').length, names.length)
      }
    },
  },
  {
    name: 'trigger excludes the socket_id, wherever it is',
    async run(t) {
      const [first, second] = [t.name('private-x'), t.name('private-y')]
      const clients = await two(t, first)
      for (const client of clients) await client.subscribed(second)
      for (const [n, excluded] of clients.entries()) {
        await t.sdk().trigger(first, `one-${n}`, {}, { socket_id: excluded.socketId })
        await t.sdk().trigger([first, second], `two-${n}`, {}, { socket_id: excluded.socketId })
      }
      for (const channel of [first, second]) await fence(t.sdk(), channel, clients)
      const events = (n) => clients[n].frames.map((frame) => frame.event).filter((event) => /^(one|two)-/.test(event)).sort()
      same('the first hears', events(0), ['one-1', 'two-1', 'two-1'])
      same('the second hears', events(1), ['one-0', 'two-0', 'two-0'])
      same('an id that nobody has', await body(t.sdk().trigger(first, 'nobody', {}, { socket_id: '1.1' })), {})
    },
  },
  {
    name: 'trigger with info answers the counts',
    async run(t) {
      const [room, news] = [t.name('presence-info'), t.name('news-info')]
      const clients = await two(t, room)
      await clients[0].subscribed(news)
      const info = 'user_count,subscription_count'
      same('the answer', await body(t.sdk().trigger([room, news], 'e', {}, { info })), {
        channels: { [room]: { user_count: 2, subscription_count: 2 }, [news]: { subscription_count: 1 } },
      })
      const empty = t.name('empty-info')
      same('a channel without anybody', await body(t.sdk().trigger(empty, 'e', {}, { info: 'subscription_count' })),
        { channels: { [empty]: { subscription_count: 0 } } })
    },
  },
  {
    name: 'triggerBatch: in order, answers aligned',
    async run(t) {
      const [room, news] = [t.name('presence-batch'), t.name('news-batch')]
      const clients = await two(t, room)
      for (const client of clients) await client.subscribed(news)
      const batch = [
        { channel: room, name: 'e', data: 1, info: 'user_count' },
        { channel: news, name: 'e', data: 2 },
        { channel: news, name: 'e', data: 3, info: 'subscription_count', socket_id: clients[0].socketId },
      ]
      same('the answer', await body(t.sdk().triggerBatch(batch)), { batch: [{ user_count: 2 }, {}, { subscription_count: 2 }] })
      same('without info', await body(t.sdk().triggerBatch([{ channel: news, name: 'last', data: 4 }])), {})
      for (const client of clients) await client.gets('last', news)
      same('with everything', clients[1].events(news), [['e', 2], ['e', 3], ['last', 4]])
      same('without the excluded one', clients[0].events(news), [['e', 2], ['last', 4]])
      const eleven = Array.from({ length: 11 }, () => ({ channel: news, name: 'e', data: 1 }))
      await refused('eleven in a batch', t.sdk().triggerBatch(eleven), 400, /Batch too large/)
    },
  },
  {
    name: 'GET channels, channel and users',
    async run(t) {
      const server = t.sdk()
      const stem = t.name('presence-get')
      await two(t, `${stem}-a`)
      await t.client({ user: 'ann', at: t.at(1) }).subscribed(`${stem}-b`)
      await t.client().subscribed(t.name('get-open'))
      same('by prefix', await fetched(server, '/channels', { filter_by_prefix: stem }),
        { channels: { [`${stem}-a`]: {}, [`${stem}-b`]: {} } })
      same('with user_count', await fetched(server, '/channels', { filter_by_prefix: stem, info: 'user_count' }),
        { channels: { [`${stem}-a`]: { user_count: 2 }, [`${stem}-b`]: { user_count: 1 } } })
      const { channels } = await fetched(server, '/channels')
      holds('all of them', [`${stem}-a`, `${stem}-b`, t.name('get-open')].every((name) => channels[name]), channels)
      same('none', await fetched(server, '/channels', { filter_by_prefix: 'no-such-' }), { channels: {} })
      same('a channel', await fetched(server, `/channels/${stem}-a`, { info: 'user_count,subscription_count' }),
        { occupied: true, user_count: 2, subscription_count: 2 })
      same('an empty one', await fetched(server, `/channels/${t.name('void')}`), { occupied: false })
      const { users } = await fetched(server, `/channels/${stem}-a/users`)
      same('users', users.map(({ id }) => id).sort(), ['ann', 'bob'])
      same('users of an empty one', await fetched(server, `/channels/presence-${t.name('void')}/users`), { users: [] })
      await refused('users of a public channel', server.get({ path: `/channels/${t.name('void')}/users` }), 400, /presence/i)
      await refused('user_count of all channels', server.get({ path: '/channels', params: { info: 'user_count' } }), 400, /presence-/)
      await refused('user_count of a public channel', server.get({ path: '/channels/x', params: { info: 'user_count' } }), 400, /presence/i)
    },
  },
  {
    name: 'any gateway answers with the whole cluster',
    async run(t) {
      const channel = t.name('presence-whole')
      await two(t, channel)
      for (const gateway of t.cluster.gateways) {
        const server = t.sdk('shop', gateway)
        same(gateway.name, await fetched(server, `/channels/${channel}`, { info: 'user_count,subscription_count' }),
          { occupied: true, user_count: 2, subscription_count: 2 })
        const { connections } = await fetched(server, '/connections')
        holds('two connections or more', connections >= 2, connections)
      }
    },
  },
  {
    name: 'wrong secret, key, app and time are refused with 401',
    async run(t) {
      const at = (options) => t.sdk('shop', t.apart, options)
      await refused('another secret', at({ secret: 'wrong' }).trigger('a', 'e', {}), 401, /signature/i)
      await refused('another secret, reading', at({ secret: 'wrong' }).get({ path: '/channels' }), 401, /signature/i)
      await refused('an unknown key', at({ key: 'wrong' }).trigger('a', 'e', {}), 401, /auth_key/)
      const foreign = at({ key: keyOf('reverb'), secret: secretOf('reverb') })
      await refused("another app's key", foreign.trigger('a', 'e', {}), 401, /key/)
      const error = await fails('an unknown app', at({ appId: 'nowhere' }).trigger('a', 'e', {}))
      holds('401 or 404', [401, 404].includes(error.status), error.status)
      await refused('a disabled app', t.sdk('closed').trigger('a', 'e', {}), 403, /disabled/i)
      const late = Math.floor(Date.now() / 1000) - 3600
      const clock = Date.now
      Date.now = () => late * 1000
      const signing = t.sdk().trigger('a', 'e', {})
      Date.now = clock
      await refused('an hour late', signing, 401, /[Tt]imestamp/)
    },
  },
  {
    name: 'what is too big or too many is refused',
    async run(t) {
      const channel = t.name('big')
      const clients = [await t.client({ at: t.at(0) }).connected()]
      await clients[0].subscribed(channel)
      const text = (bytes) => 'x'.repeat(bytes)
      await refused('11 KiB', t.sdk().trigger(channel, 'e', text(11 * 1024)), 413, /10240|10 ?KB/)
      same('10 KiB', await body(t.sdk().trigger(channel, 'most', text(10_240))), {})
      same('arrives whole', (await clients[0].gets('most', channel)).data.length, 10_240)
      await refused('11 KiB in a batch', t.sdk().triggerBatch([{ channel, name: 'e', data: text(11 * 1024) }]), 413, /10240|10 ?KB/)
      const many = (count) => Array.from({ length: count }, (_, n) => `many-${n}`)
      same('100 channels', await body(t.sdk().trigger(many(100), 'e', {})), {})
      const post = (events) => t.sdk().post({ path: '/events', body: { name: 'e', data: '{}', ...events } })
      await refused('101 channels', post({ channels: many(101) }), 400, /100/)
      await refused('a name of 201', post({ channel: text(201) }), 400, /200/)
      await refused('a name with a space', post({ channel: 'a b' }), 400, /name|channel/i)
      await refused('an event name of 201', post({ channel, name: text(201) }), 400, /200/)
      await refused('no channel', post({}), 400, /channel/)
      await refused('no name', t.sdk().post({ path: '/events', body: { channel, data: '{}' } }), 400, /name/)
      await refused('a socket_id that is none', post({ channel, socket_id: 'mine' }), 400, /socket.id/)
    },
  },
  {
    name: 'terminate is answered for users who are not there',
    async run(t) {
      same('the answer', await body(t.sdk().terminateUserConnections(t.name('nobody'))), {})
    },
  },
  {
    name: 'a hundred requests at once, kept alive and not, are all answered',
    async run(t) {
      const channel = t.name('busy')
      const client = t.client()
      await client.subscribed(channel)
      const { Agent } = await import('node:http')
      const agent = new Agent({ keepAlive: true, maxSockets: 4 })
      t.onEnd(() => agent.destroy())
      const servers = [t.sdk('shop', t.apart, { agent }), t.sdk()]
      await Promise.all(Array.from({ length: 100 }, (_, n) => servers[n % 2].trigger(channel, 'e', n)))
      await until('all arrive', () => client.events(channel).length === 100)
      same('each once', new Set(client.events(channel).map(([, n]) => n)).size, 100)
    },
  },
]
