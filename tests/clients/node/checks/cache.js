// Cache channels: later subscribers get the channel's last event.
import { fence } from '../lib/client.js'
import { fetched } from '../lib/sdk.js'
import { holds, same } from '../lib/wait.js'

const KINDS = ['cache', 'private-cache', 'presence-cache', 'private-encrypted-cache']
const checks = []

const order = (client, channel) => client.frames.filter((frame) => frame.channel === channel).map((frame) => frame.event)

for (const kind of KINDS) {
  checks.push({
    name: `${kind}-: a cache miss first, then the last event for each subscriber`,
    async run(t) {
      const channel = t.name(kind)
      const server = t.sdk()
      const early = t.client({ user: 'early', at: t.at(0) })
      await early.subscribed(channel)
      await early.gets('pusher:cache_miss', channel)
      same('the order', order(early, channel).slice(0, 2), ['pusher_internal:subscription_succeeded', 'pusher:cache_miss'])
      await server.trigger(channel, 'price', { cents: 100 })
      await server.trigger(channel, 'price', { cents: 200 })
      await fence(server, channel, [early])
      await server.trigger(channel, 'price', { cents: 300 })
      const late = t.client({ user: 'late', at: t.at(1) })
      const heard = []
      late.pusher.subscribe(channel).bind('price', (data) => heard.push(data))
      await late.gets('price', channel)
      same('what the latecomer hears', heard, [{ cents: 300 }])
      same('the order', order(late, channel), ['pusher_internal:subscription_succeeded', 'price'])
    },
  })
}

checks.push({
  name: 'an event sent while the channel has no subscriber is kept',
  async run(t) {
    const channel = t.name('cache-alone')
    await t.sdk().trigger(channel, 'price', { cents: 1 })
    const { cache } = await fetched(t.sdk(), `/channels/${channel}`, { info: 'cache' })
    same('GET channel', cache?.data, '{"cents":1}')
    holds('a ttl in seconds up to half an hour', cache.ttl > 1700 && cache.ttl <= 1800, cache)
    const client = t.client({ at: t.at(1) })
    await client.subscribed(channel)
    same('the event', (await client.gets('price', channel)).data, { cents: 1 })
  },
})

checks.push({
  name: 'client events are not kept',
  async run(t) {
    const channel = t.name('private-cache-whisper')
    const [one, two] = [t.client({ at: t.at(0) }), t.client({ at: t.at(1) })]
    const mine = await one.subscribed(channel)
    await two.subscribed(channel)
    await t.sdk().trigger(channel, 'price', { cents: 5 })
    await two.gets('price', channel)
    mine.trigger('client-typing', {})
    await two.gets('client-typing', channel)
    const late = t.client({ at: t.at(1) })
    await late.subscribed(channel)
    await late.gets('price', channel)
    same('what is kept', late.events(channel), [['price', { cents: 5 }]])
  },
})

export default checks
