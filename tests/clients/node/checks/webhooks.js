// The webhooks that a backend gets about its app's channels, as its library verifies and parses them.
import { createServer } from 'node:http'
import { fence } from '../lib/client.js'
import { channelAt } from '../lib/members.js'
import { same, until } from '../lib/wait.js'

const APP = 'hooked'
/** A last member may come back within three seconds; two more are the machine's. */
const QUIET_MS = 5000

/** The backend: `told(channel)` are the events of genuine requests. `answer` gives each request's status. */
async function backend(t, answer = () => 200) {
  const got = []
  const server = createServer((request, response) => {
    let rawBody = ''
    request.on('data', (chunk) => { rawBody += chunk })
    request.on('end', () => {
      const status = answer(rawBody)
      if (status === 200) got.push({ headers: request.headers, rawBody })
      response.writeHead(status).end()
    })
  })
  await new Promise((resolve, reject) => server.once('error', reject).listen(t.cluster.hookPort, '127.0.0.1', resolve))
  t.onEnd(() => new Promise((resolve) => { server.closeAllConnections(); server.close(resolve) }))
  const events = (channel) => got.flatMap((request) => {
    const hook = t.sdk(APP).webhook(request)
    if (!hook.isValid()) throw new Error(`expected: a genuine webhook\n    came:     ${JSON.stringify(request)}`)
    // Each has an id besides, by which a repeat is known.
    return hook.getEvents().filter((event) => event.channel === channel).map(({ id, ...event }) => event)
  })
  return { got, events, told: (channel) => events(channel).map((event) => event.name) }
}

export default [
  {
    name: 'occupied, added, removed, vacated: each once, signed as the library checks it',
    async run(t) {
      const { got, events, told } = await backend(t)
      const channel = t.name('presence-hooked')
      const ann = t.client({ app: APP, user: 'ann', at: t.at(0) })
      await ann.subscribed(channel)
      const tab = t.client({ app: APP, user: 'ann', at: t.at(1) })
      await tab.subscribed(channel)
      const bob = t.client({ app: APP, user: 'bob', at: t.at(1) })
      await bob.subscribed(channel)
      await until('three have arrived', () => told(channel).length >= 3)
      for (const client of [tab, ann, bob]) client.close()
      await until('six have arrived', () => told(channel).length >= 6)
      const expected = ['channel_occupied', 'member_added', 'member_added', 'channel_vacated', 'member_removed', 'member_removed']
      same('what was told', told(channel).sort(), expected.sort())
      same('who came', events(channel).filter(({ name }) => name === 'member_added').map((event) => event.user_id), ['ann', 'bob'])
      same('the first', events(channel)[0], { name: 'channel_occupied', channel })
      same('the type', got[0].headers['content-type'], 'application/json')
    },
  },
  {
    name: 'client_event and cache_miss',
    async run(t) {
      const { events } = await backend(t)
      const [chat, cache] = [t.name('presence-chat'), t.name('cache-hooked')]
      const ann = t.client({ app: APP, user: 'ann', at: t.at(0) })
      const mine = await ann.subscribed(chat)
      mine.trigger('client-typing', { on: true })
      await ann.subscribed(cache)
      const named = (channel, name) => events(channel).filter((event) => event.name === name)
      await until('the client event arrives', () => named(chat, 'client_event').length > 0)
      const [event] = named(chat, 'client_event')
      same('the event', { ...event, data: JSON.parse(event.data) },
        { name: 'client_event', channel: chat, event: 'client-typing', data: { on: true }, socket_id: ann.socketId, user_id: 'ann' })
      await until('the cache miss arrives', () => named(cache, 'cache_miss').length > 0)
    },
  },
  {
    name: 'who comes back at once has not gone',
    async run(t) {
      const { told } = await backend(t)
      const channel = t.name('presence-back')
      const first = t.client({ app: APP, user: 'ann', at: t.at(0) })
      await first.subscribed(channel)
      first.close()
      const second = t.client({ app: APP, user: 'ann', at: t.at(1) })
      await second.subscribed(channel)
      const end = Date.now() + QUIET_MS
      await until('it is quiet', () => Date.now() > end)
      await fence(t.sdk(APP), channel, [second])
      same('what was told', told(channel).sort(), ['channel_occupied', 'member_added'])
    },
  },
  {
    name: 'what a backend could not take comes again',
    async run(t) {
      let refusals = 3
      const { told } = await backend(t, (body) => (body.includes('again') && refusals-- > 0 ? 500 : 200))
      const channel = t.name('again')
      await t.client({ app: APP, at: t.at(1) }).subscribed(channel)
      await until('it arrives in the end', () => told(channel).length > 0, 60_000)
      same('once', told(channel), ['channel_occupied'])
    },
  },
  {
    name: "users lost with a gateway are reported as left, at least once",
    settings: ['three'],
    async run(t) {
      await channelAt(t, 0, 'presence-place')
      const { events, told } = await backend(t)
      // Several, so that their homes are everywhere, also where they die with their only member.
      const names = (what) => Array.from({ length: 6 }, (_, n) => `${t.name(what)}-${n}`)
      const [shared, alone] = [names('presence-shared'), names('presence-alone')]
      const lost = t.client({ app: APP, user: 'lost', at: t.cluster.gateways[1] })
      const stays = t.client({ app: APP, user: 'stays', at: t.cluster.gateways[0] })
      for (const channel of [...shared, ...alone]) await lost.subscribed(channel)
      for (const channel of shared) await stays.subscribed(channel)
      await until('all have come', () => shared.every((channel) => told(channel).length === 3) && alone.every((channel) => told(channel).length === 2))
      await t.cluster.kill(t.cluster.gateways[1].name)
      // Events that were not confirmed when it died are sent again.
      const users = (channel, name) => events(channel).filter((event) => event.name === name).map((event) => event.user_id)
      await until('the lost user is reported everywhere', () =>
        [...shared, ...alone].every((channel) => users(channel, 'member_removed').includes('lost')) &&
        alone.every((channel) => told(channel).includes('channel_vacated')), 60_000)
      for (const channel of shared) {
        same(`the users reported to have left ${channel}`, [...new Set(users(channel, 'member_removed'))], ['lost'])
        same(`vacated ${channel}`, told(channel).includes('channel_vacated'), false)
      }
    },
  },
]
