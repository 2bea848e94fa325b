// Where an app with compat = "reverb" behaves as Laravel Reverb does, since Laravel's own tools expect it.
import { fetched } from '../lib/sdk.js'
import { fails, same, until } from '../lib/wait.js'

const APP = 'reverb'

export default [
  {
    name: 'numeric ids stay numbers, in GET users too',
    async run(t) {
      const channel = t.name('presence-numbers')
      const client = t.client({ app: APP, user: 7, at: t.at(0) })
      await client.subscribed(channel)
      await t.client({ app: APP, user: 'ann', at: t.at(1) }).subscribed(channel)
      const { users } = await fetched(t.sdk(APP), `/channels/${channel}/users`)
      same('users', users.map(({ id }) => id).sort(), [7, 'ann'])
    },
  },
  {
    name: 'users of an empty presence channel are not found',
    async run(t) {
      const error = await fails('GET users', t.sdk(APP).get({ path: `/channels/${t.name('presence-void')}/users` }))
      same('the status', error.status, 404)
    },
  },
  {
    name: 'what does not apply is left out, not refused',
    async run(t) {
      const [room, news] = [t.name('presence-info'), t.name('info')]
      const client = t.client({ app: APP, user: 'ann', at: t.at(1) })
      for (const name of [room, news]) await client.subscribed(name)
      const info = 'user_count,subscription_count'
      same('of a public channel', await fetched(t.sdk(APP), `/channels/${news}`, { info }), { occupied: true, subscription_count: 1 })
      same('of a presence channel', await fetched(t.sdk(APP), `/channels/${room}`, { info }), { occupied: true, user_count: 1 })
      const { channels } = await fetched(t.sdk(APP), '/channels', { info: 'user_count' })
      same('of all', [channels[room], channels[news]], [{ user_count: 1 }, {}])
    },
  },
  {
    name: "Pulse's question for the number of connections, from every gateway",
    async run(t) {
      const clients = [0, 1].map((n) => t.client({ app: APP, at: t.at(n) }))
      for (const client of clients) await client.connected()
      for (const gateway of t.cluster.gateways) {
        const server = t.sdk(APP, gateway)
        await until(`two by ${gateway.name}`, async () => (await fetched(server, '/connections')).connections === 2)
      }
    },
  },
  {
    name: 'terminating a user closes clients present under its id, even without a signin',
    async run(t) {
      const user = t.name('ann')
      const [present, gone] = [0, 1].map((n) => t.client({ app: APP, user, at: t.at(n) }))
      for (const client of [present, gone]) await client.subscribed(t.name('presence-terminated'))
      gone.pusher.unsubscribe(t.name('presence-terminated'))
      await gone.subscribed(t.name('afterwards'))
      await t.sdk(APP).terminateUserConnections(user)
      await until('who is present is closed', () => present.state === 'disconnected')
      same('who is present no more', gone.state, 'connected')
    },
  },
]
