// Client events.
import { VERSIONS, fence } from '../lib/client.js'
import { holds, same, until } from '../lib/wait.js'

const checks = []

for (const version of Object.keys(VERSIONS)) {
  checks.push({
    name: `${version}: to the others in a private channel, not to itself`,
    async run(t) {
      const channel = t.name('private-chat')
      const clients = [0, 1, 0].map((n) => t.client({ version, at: t.at(n) }))
      const channels = []
      for (const client of clients) channels.push(await client.subscribed(channel))
      const values = [{ a: 1 }, [1, 'x'], 'text', 7, null]
      for (const value of values) channels[0].trigger('client-typing', value)
      const expected = values.map((value) => ['client-typing', value])
      for (const other of clients.slice(1)) {
        await until('all of them', () => other.events(channel).length >= values.length)
        same('what the others hear', other.events(channel), expected)
        same('user_id', other.got('client-typing')[0].user_id, undefined)
      }
      await fence(t.sdk(), channel, [clients[0]])
      same('what the sender hears', clients[0].got('client-typing'), [])
    },
  })
  checks.push({
    name: `${version}: in a presence channel with the sender's user_id`,
    async run(t) {
      const channel = t.name('presence-chat')
      const [ann, bob] = [t.client({ version, user: 'ann', at: t.at(0) }), t.client({ version, user: 'bob', at: t.at(1) })]
      const mine = await ann.subscribed(channel)
      const his = await bob.subscribed(channel)
      const heard = []
      his.bind('client-typing', (data, metadata) => heard.push([data, metadata]))
      mine.trigger('client-typing', { on: true })
      await until('bob hears it', () => heard.length > 0)
      same('data and metadata', heard, [[{ on: true }, { user_id: 'ann' }]])
    },
  })
}

checks.push({
  name: 'the sender cannot name another user',
  async run(t) {
    const channel = t.name('presence-spoof')
    const bob = t.client({ user: 'bob', at: t.at(1) })
    await bob.subscribed(channel)
    const raw = await t.raw()
    const { auth, channel_data } = t.sdk().authorizeChannel(raw.socketId, channel, { user_id: 'eve' })
    raw.say('pusher:subscribe', { auth, channel_data, channel })
    await raw.gets('pusher_internal:subscription_succeeded', channel)
    raw.send(JSON.stringify({ event: 'client-x', channel, data: {}, user_id: 'ann', extra: 1 }))
    await bob.gets('client-x', channel)
    same('the frame', bob.got('client-x')[0], { event: 'client-x', channel, data: {}, user_id: 'eve' })
  },
})

checks.push({
  name: 'the eleventh within a second is dropped, with 4301',
  async run(t) {
    const channel = t.name('private-flood')
    const [loud, other] = [t.client({ at: t.at(0) }), t.client({ at: t.at(1) })]
    const mine = await loud.subscribed(channel)
    await other.subscribed(channel)
    for (let n = 1; n <= 11; n++) mine.trigger('client-n', n)
    const error = await loud.gets('pusher:error')
    same('the code', error.data.code, 4301)
    await fence(t.sdk(), channel, [loud, other])
    same('what the other heard', other.got('client-n').map((frame) => frame.data), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    same('errors', loud.got('pusher:error').length, 1)
    same('the state', loud.state, 'connected')
    await until('it may speak again', () => {
      mine.trigger('client-again', 1)
      return other.got('client-again').length > 0
    })
  },
})

checks.push({
  name: 'refused in public channels, and where it is not subscribed',
  async run(t) {
    const channel = t.name('open')
    const [loud, other] = [t.client({ at: t.at(0) }), t.client({ at: t.at(1) })]
    const mine = await loud.subscribed(channel)
    await other.subscribed(channel)
    mine.trigger('client-x', {})
    const error = await loud.gets('pusher:error')
    same('the error', error.data,
      { message: 'Client event rejected - only supported on private and presence channels', code: null })
    loud.say('client-x', {}, t.name('private-elsewhere'))
    await until('the second error', () => loud.got('pusher:error').length === 2)
    const { message } = loud.got('pusher:error')[1].data
    holds('a sentence on the subscription', /not subscribed/.test(message), message)
    await fence(t.sdk(), channel, [other])
    same('what the other heard', other.got('client-x'), [])
  },
})

checks.push({
  name: 'refused where the app does not have them',
  async run(t) {
    const channel = t.name('private-quiet')
    const [loud, other] = [t.client({ app: 'quiet' }), t.client({ app: 'quiet', at: t.at(1) })]
    const mine = await loud.subscribed(channel)
    await other.subscribed(channel)
    mine.trigger('client-x', {})
    const { data } = await loud.gets('pusher:error')
    same('the code', data.code, null)
    holds('a sentence that says to enable them', /To send client events, you must enable/.test(data.message), data.message)
    await fence(t.sdk('quiet'), channel, [other])
    same('what the other heard', other.got('client-x'), [])
  },
})

export default checks
