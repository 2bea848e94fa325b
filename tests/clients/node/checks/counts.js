// Subscribers get the subscription count, if the app has this enabled.
import { same, until } from '../lib/wait.js'

export default [
  {
    name: 'subscription_count follows who comes and goes',
    async run(t) {
      const channel = t.name('counted')
      const first = t.client({ app: 'counting', at: t.at(0) })
      const told = []
      const mine = await first.subscribed(channel)
      mine.bind('pusher:subscription_count', ({ subscription_count }) => told.push(subscription_count))
      const second = t.client({ app: 'counting', at: t.at(1) })
      await second.subscribed(channel)
      await until('two', () => told.at(-1) === 2)
      second.close()
      await until('one', () => told.at(-1) === 1)
      same('what pusher-js knows', mine.subscriptionCount, 1)
    },
  },
  {
    name: 'no counts are sent where the app has them disabled',
    async run(t) {
      const channel = t.name('uncounted')
      const first = t.client({ at: t.at(0) })
      await first.subscribed(channel)
      await t.client({ at: t.at(1) }).subscribed(channel)
      await t.sdk().trigger(channel, 'fence', {})
      await first.gets('fence', channel)
      same('counts', first.got('pusher_internal:subscription_count'), [])
    },
  },
]
