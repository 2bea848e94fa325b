// Who is in a presence channel.
import { VERSIONS, fence } from '../lib/client.js'
import { fetched } from '../lib/sdk.js'
import { same, until } from '../lib/wait.js'

/** A client in the channel, and the presence events it got of others. */
async function inside(t, channel, n, options) {
  const client = t.client({ at: t.at(n), ...options })
  const subscribed = await client.subscribed(channel)
  client.told = []
  for (const event of ['member_added', 'member_removed']) {
    subscribed.bind(`pusher:${event}`, ({ id, info }) => client.told.push([event.slice(7), id, info]))
  }
  client.here = () => Object.fromEntries(Object.entries(subscribed.members.members))
  return client
}

const checks = []
for (const version of Object.keys(VERSIONS)) {
  checks.push({
    name: `${version}: here, joining, leaving`,
    async run(t) {
      const channel = t.name('presence-room')
      const ann = await inside(t, channel, 0, { version, user: 'ann', info: { name: 'Ann' } })
      same('alone', ann.here(), { ann: { name: 'Ann' } })
      const bob = await inside(t, channel, 1, { version, user: 'bob', info: { name: 'Bob' } })
      same('both, to the second', bob.here(), { ann: { name: 'Ann' }, bob: { name: 'Bob' } })
      await until('ann gets the event', () => ann.told.length === 1)
      const cid = await inside(t, channel, 1, { version, user: 'cid' })
      await until('both get the event', () => ann.told.length === 2 && bob.told.length === 1)
      bob.pusher.unsubscribe(channel)
      await until('bob has left', () => ann.told.length === 3)
      cid.close()
      await until('cid has gone', () => ann.told.length === 4)
      await fence(t.sdk(), channel, [ann])
      const bare = ann.told[1][2]
      same('the events that ann got', ann.told, [
        ['added', 'bob', { name: 'Bob' }], ['added', 'cid', bare],
        ['removed', 'bob', { name: 'Bob' }], ['removed', 'cid', ann.told[3][2]],
      ])
      same('a user without info', bare ?? null, null)
      same('who is left', await fetched(t.sdk(), `/channels/${channel}/users`), { users: [{ id: 'ann' }] })
    },
  })
  checks.push({
    name: `${version}: two tabs are one user`,
    async run(t) {
      const channel = t.name('presence-tabs')
      const ann = await inside(t, channel, 0, { version, user: 'ann' })
      const tabs = [await inside(t, channel, 0, { version, user: 'bob' }), await inside(t, channel, 1, { version, user: 'bob' })]
      same('who is here', Object.keys(tabs[1].here()).sort(), ['ann', 'bob'])
      const info = { info: 'user_count,subscription_count' }
      same('the counts', await fetched(t.sdk(), `/channels/${channel}`, info),
        { occupied: true, user_count: 2, subscription_count: 3 })
      tabs[0].close()
      await until('two subscriptions are left', async () =>
        (await fetched(t.sdk(), `/channels/${channel}`, info)).subscription_count === 2)
      await fence(t.sdk(), channel, [ann, tabs[1]])
      same('told so far', ann.told.map(([what, id]) => [what, id]), [['added', 'bob']])
      same('the events of the second tab', tabs[1].told, [])
      tabs[1].close()
      await until('bob has gone', () => ann.told.length === 2)
      await fence(t.sdk(), channel, [ann])
      same('told', ann.told.map(([what, id]) => [what, id]), [['added', 'bob'], ['removed', 'bob']])
    },
  })
  checks.push({
    name: `${version}: a numeric user_id`,
    async run(t) {
      const channel = t.name('presence-numbers')
      const seven = await inside(t, channel, 0, { version, user: 7, info: { name: 'Seven' } })
      const eight = await inside(t, channel, 1, { version, user: 8 })
      await until('it gets the event', () => seven.told.length === 1)
      same('the id as it was sent', seven.told[0].slice(0, 2), ['added', 8])
      same('here', Object.keys(eight.here()).sort(), ['7', '8'])
      eight.close()
      await until('it has gone', () => seven.told.length === 2)
      same('the id that went', seven.told[1].slice(0, 2), ['removed', 8])
      same('GET users: text', await fetched(t.sdk(), `/channels/${channel}/users`), { users: [{ id: '7' }] })
    },
  })
}

checks.push({
  name: 'the list is the same on every gateway',
  async run(t) {
    const channel = t.name('presence-list')
    const clients = []
    for (let n = 0; n < 12; n++) clients.push(await inside(t, channel, n, { user: `u${n % 9}` }))
    const expected = Array.from({ length: 9 }, (_, n) => `u${n}`)
    for (const gateway of t.cluster.gateways) {
      const { users } = await fetched(t.sdk('shop', gateway), `/channels/${channel}/users`)
      same(`GET users at ${gateway.name}`, users.map(({ id }) => id).sort(), expected)
    }
    for (const client of clients) {
      await until('everybody knows all', () => Object.keys(client.here()).length === 9)
    }
  },
})

checks.push({
  name: 'a page that is reloaded again and again gets consistent events',
  async run(t) {
    const channel = t.name('presence-reload')
    const ann = await inside(t, channel, 0, { user: 'ann' })
    for (let n = 0; n < 10; n++) (await inside(t, channel, n, { user: 'bob' })).close()
    await until('bob is gone', async () =>
      (await fetched(t.sdk(), `/channels/${channel}/users`)).users.length === 1)
    await fence(t.sdk(), channel, [ann])
    const told = ann.told.map(([what]) => what)
    same('added and removed in turn', told, told.map((_, n) => (n % 2 === 0 ? 'added' : 'removed')))
    same('the last', told.at(-1), 'removed')
  },
})

export default checks
