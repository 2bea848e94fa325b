// Subscribers are told how many they are, if the app wants it.
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
      await until('two', () => mine.subscriptionCount === 2)
      second.close()
      await until('one', () => mine.subscriptionCount === 1)
      same('the last that was told', told.at(-1), 1)
    },
  },
  {
    name: 'nobody is told where the app does not want it',
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
