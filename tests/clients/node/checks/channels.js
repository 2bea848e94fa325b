// Kinds of channels, subscribing and leaving.
import { VERSIONS, fence } from '../lib/client.js'
import { MASTER_KEY, keyOf } from '../lib/cluster.js'
import { fetched } from '../lib/sdk.js'
import { holds, same, until } from '../lib/wait.js'

const DATA = { text: 'grüße, "quoted" \\ 🎈', n: 1.5, list: [null, true] }
const checks = []

for (const version of Object.keys(VERSIONS)) {
  for (const prefix of ['news', 'private-news', 'presence-news', 'private-encrypted-news']) {
    checks.push({
      name: `${version} hears what is sent to ${prefix}`,
      async run(t) {
        const channel = t.name(prefix)
        const clients = [0, 1].map((n) => t.client({ version, at: t.at(n), user: `u${n}`, info: { name: `N${n}` } }))
        const heard = []
        for (const client of clients) {
          const subscribed = await client.subscribed(channel)
          subscribed.bind('shipped', (data) => heard.push(data))
        }
        await t.sdk().trigger(channel, 'shipped', DATA)
        await until('both hear it', () => heard.length === 2)
        same('the data', heard, [DATA, DATA])
        if (prefix.startsWith('private-encrypted-')) {
          const [frame] = clients[0].got('shipped', channel)
          same('what went over the wire', Object.keys(frame.data).sort(), ['ciphertext', 'nonce'])
        }
      },
    })
  }
  checks.push({
    name: `${version} gets an error for a wrong signature, and stays connected`,
    async run(t) {
      const wrong = { customHandler: ({ }, answer) => answer(null, { auth: `${keyOf('shop')}:${'0'.repeat(64)}` }) }
      const client = t.client({ version, channelAuthorization: wrong })
      const name = t.name('private-wrong')
      const told = []
      client.pusher.subscribe(name).bind('pusher:subscription_error', (error) => told.push(error))
      await until('pusher:subscription_error', () => told.length > 0)
      const [{ type, error, status }] = told
      same('its type and status', { type, status }, { type: 'AuthError', status: 401 })
      holds(`a sentence with ${client.socketId}:${name}`, error.includes(`${client.socketId}:${name}`), error)
      await client.subscribed(t.name('after-wrong'))
      same('the channel is not occupied', await fetched(t.sdk(), `/channels/${name}`), { occupied: false })
    },
  })
}

checks.push({
  name: 'another secret cannot open an encrypted channel',
  async run(t) {
    const channel = t.name('private-encrypted-other')
    const client = t.client()
    const failed = []
    const subscribed = await client.subscribed(channel)
    subscribed.bind('shipped', (data) => failed.push(data))
    const other = t.sdk('shop', t.apart, { encryptionMasterKeyBase64: Buffer.alloc(32, 'other').toString('base64') })
    holds('two secrets', MASTER_KEY !== Buffer.alloc(32, 'other').toString('base64'))
    await other.trigger(channel, 'shipped', DATA)
    await client.gets('shipped', channel)
    same('what the page hears', failed, [])
  },
})

checks.push({
  name: 'a second subscribe is an error, the first one stays',
  async run(t) {
    const channel = t.name('twice')
    const client = t.client()
    await client.subscribed(channel)
    client.say('pusher:subscribe', { auth: '', channel })
    const error = await client.gets('pusher:error')
    same('the error', error.data, { message: `Existing subscription to channel ${channel}`, code: null })
    await fence(t.sdk(), channel, [client])
  },
})

checks.push({
  name: 'a second subscribe is confirmed again as Reverb does',
  async run(t) {
    const channel = t.name('twice')
    const raw = await t.raw({ app: 'reverb' })
    for (const count of [1, 2]) {
      raw.say('pusher:subscribe', { auth: '', channel })
      await raw.gets('pusher_internal:subscription_succeeded', channel, count)
    }
    await t.sdk('reverb').trigger(channel, 'once', {})
    await t.sdk('reverb').trigger(channel, 'then', {})
    await raw.gets('then', channel)
    same('copies of an event', raw.got('once').length, 1)
    const { subscription_count: count } = await fetched(t.sdk('reverb'), `/channels/${channel}`, { info: 'subscription_count' })
    same('subscriptions', count, 1)
  },
})

checks.push({
  name: 'a wrong signature gets the error that Reverb sends',
  async run(t) {
    const raw = await t.raw({ app: 'reverb' })
    raw.say('pusher:subscribe', { auth: `${keyOf('reverb')}:abc`, channel: t.name('private-wrong') })
    const error = await raw.gets('pusher:error')
    same('the error', JSON.parse(error.data), { code: 4009, message: 'Connection is unauthorized' })
  },
})

checks.push({
  name: 'a client that has unsubscribed gets nothing more',
  async run(t) {
    const [left, kept] = [t.name('left'), t.name('kept')]
    const client = t.client()
    await client.subscribed(left)
    await client.subscribed(kept)
    client.pusher.unsubscribe(left)
    const server = t.sdk()
    await until('the channel is empty', async () => (await fetched(server, `/channels/${left}`)).occupied === false)
    await server.trigger([left], 'late', {})
    await fence(server, kept, [client])
    same('events of the channel it left', client.events(left), [])
    client.say('pusher:unsubscribe', { channel: left })
    const error = await client.gets('pusher:error')
    same('leaving again', error.data,
      { message: `No current subscription to channel ${left}, or subscription in progress`, code: null })
    await client.subscribed(left)
    await fence(server, left, [client])
  },
})

checks.push({
  name: 'leaving and coming back in one breath ends subscribed',
  async run(t) {
    const channel = t.name('private-breath')
    const raw = await t.raw()
    const { auth } = t.sdk().authorizeChannel(raw.socketId, channel)
    for (let round = 0; round < 10; round++) {
      raw.say('pusher:subscribe', { auth, channel })
      if (round < 9) raw.say('pusher:unsubscribe', { channel })
    }
    await raw.gets('pusher_internal:subscription_succeeded', channel, 10)
    same('errors', raw.got('pusher:error'), [])
    await fence(t.sdk(), channel, [raw])
    const { subscription_count: count } = await fetched(t.sdk(), `/channels/${channel}`, { info: 'subscription_count' })
    same('subscriptions', count, 1)
  },
})

checks.push({
  name: 'one publisher is heard in its order everywhere',
  async run(t) {
    const channel = t.name('order')
    const clients = [t.client({ at: t.at(0) }), t.client({ at: t.at(1) }), t.client({ at: t.apart })]
    for (const client of clients) await client.subscribed(channel)
    const server = t.sdk()
    const expected = []
    for (let n = 0; n < 100; n++) {
      await server.trigger(channel, 'step', n)
      expected.push(['step', n])
    }
    for (const client of clients) {
      await until('all steps', () => client.events(channel).length >= 100)
      same('the steps', client.events(channel), expected)
    }
  },
})

export default checks
