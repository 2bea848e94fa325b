// Signed-in users.
import { VERSIONS } from '../lib/client.js'
import { holds, same, until } from '../lib/wait.js'

const checks = []

for (const version of Object.keys(VERSIONS)) {
  checks.push({
    name: `${version} signs in and hears what is sent to its user`,
    async run(t) {
      const [ann, bob] = [t.name('ann'), t.name('bob')]
      const hers = [0, 1].map((n) => t.client({ version, at: t.at(n), user: ann, info: { name: 'Ann' } }))
      const his = t.client({ version, at: t.at(1), user: bob })
      const heard = []
      for (const client of [...hers, his]) {
        await client.signedIn()
        client.pusher.user.bind('invoice', (data) => heard.push([client.pusher.user.user_data.id, data]))
      }
      same('the user', hers[0].pusher.user.user_data, { id: ann, user_info: { name: 'Ann' } })
      await t.sdk().sendToUser(ann, 'invoice', { n: 1 })
      await t.sdk().sendToUser(bob, 'invoice', { n: 2 })
      await until('three hear', () => heard.length >= 3)
      same('who heard what', heard.sort(), [[ann, { n: 1 }], [ann, { n: 1 }], [bob, { n: 2 }]])
    },
  })
  checks.push({
    name: `${version} stops when its user's connections are terminated`,
    async run(t) {
      const [ann, bob] = [t.name('ann'), t.name('bob')]
      const hers = [0, 1].map((n) => t.client({ version, at: t.at(n), user: ann }))
      const his = await t.client({ version, at: t.at(0), user: bob }).signedIn()
      for (const client of hers) await client.signedIn()
      await t.sdk().terminateUserConnections(ann)
      for (const client of hers) {
        await until('pusher-js stops', () => client.state === 'disconnected')
        same('the codes', [...new Set(client.errors.map((error) => error.code))], [4009])
      }
      await t.sdk().sendToUser(bob, 'still', {})
      await his.gets('still')
      same('the other user', his.state, 'connected')
    },
  })
}

checks.push({
  name: "no client can reach another user's channel",
  async run(t) {
    const ann = t.name('ann')
    const eve = await t.client({ user: t.name('eve') }).signedIn()
    const channel = `#server-to-user-${ann}`
    eve.say('pusher:subscribe', { auth: '', channel })
    const refused = await eve.gets('pusher:subscription_error', channel)
    same('the status', refused.data.status, 401)
    const hers = await t.client({ at: t.at(1), user: ann }).signedIn()
    await t.sdk().sendToUser(ann, 'secret', {})
    await hers.gets('secret')
    await t.sdk().sendToUser(eve.pusher.user.user_data.id, 'fence', {})
    await eve.gets('fence')
    same('what eve heard', eve.got('secret'), [])
  },
})

checks.push({
  name: 'a connection can sign in neither as another user nor with a false signature',
  async run(t) {
    const raw = await t.raw()
    const server = t.sdk()
    const ann = server.authenticateUser(raw.socketId, { id: 'ann' })
    raw.say('pusher:signin', ann)
    await raw.gets('pusher:signin_success')
    raw.say('pusher:signin', ann)
    await raw.gets('pusher:signin_success', undefined, 2)
    raw.say('pusher:signin', server.authenticateUser(raw.socketId, { id: 'bob' }))
    holds('an error', (await raw.gets('pusher:error')).data.message.length > 0)
    const fresh = await t.raw()
    fresh.say('pusher:signin', { ...ann, user_data: '{"id":"ann"}' })
    const { data } = await fresh.gets('pusher:error')
    same('a signature for another connection', data.code, 4009)
    same('signed in', fresh.got('pusher:signin_success'), [])
  },
})

checks.push({
  name: 'a watchlist tells who is online and who goes',
  async run(t) {
    const [ann, bob, cid] = [t.name('ann'), t.name('bob'), t.name('cid')]
    const his = await t.client({ at: t.at(1), user: bob }).signedIn()
    const hers = t.client({ at: t.at(0), user: ann, watchlist: [bob, cid] })
    const told = []
    for (const event of ['online', 'offline']) {
      hers.pusher.user.watchlist.bind(event, ({ user_ids }) => told.push([event, user_ids]))
    }
    await hers.signedIn()
    await until('the state of both', () => told.length >= 2)
    same('the state', told.sort(), [['offline', [cid]], ['online', [bob]]])
    const second = await t.client({ at: t.at(0), user: bob }).signedIn()
    his.close()
    const came = await t.client({ at: t.at(1), user: cid }).signedIn()
    await until('cid is online', () => told.length >= 3)
    same('who came; bob has a second connection', told[2], ['online', [cid]])
    second.close()
    await until('bob is offline', () => told.length >= 4)
    same('who went', told[3], ['offline', [bob]])
    came.close()
    await until('cid is offline', () => told.length >= 5)
    same('who went', told[4], ['offline', [cid]])
  },
})

export default checks
