// Presence when gateways go away without a word.
import { RECOVERY_SECONDS_MAX } from '../lib/cluster.js'
import { channelAt, join, member, told, users } from '../lib/members.js'
import { holds, same, until } from '../lib/wait.js'

const PATIENCE_MS = 60_000

async function crash(t, { home }) {
  const victim = 1
  const channel = await channelAt(t, home, 'presence-crash')
  const { gateways } = t.cluster
  const members = []
  for (const [n, gateway] of gateways.entries()) {
    for (const letter of ['a', 'b']) members.push(await member(t, gateway, channel, `g${n + 1}-${letter}`))
    members.push(await member(t, gateway, channel, 'everywhere'))
  }
  const all = [...new Set(members.map((raw) => raw.user))].sort()
  for (const gateway of gateways) same(`who is there, by ${gateway.name}`, await users(t, gateway, channel), all)
  const survivors = gateways.filter((_, n) => n !== victim)
  const observers = members.filter((raw) => raw.at !== gateways[victim])
  const lost = ['g2-a', 'g2-b']
  const begun = Date.now()
  await t.cluster.kill(gateways[victim].name)
  for (const observer of observers) {
    await until(`${observer.user} sees both removed`, () => told(observer, 'member_removed').length >= 2, PATIENCE_MS)
  }
  const removed = (Date.now() - begun) / 1000
  const left = all.filter((user) => !lost.includes(user))
  for (const gateway of survivors) {
    await until(`users by ${gateway.name} are ${left}`, async () => String(await users(t, gateway, channel)) === String(left), PATIENCE_MS)
  }
  const right = (Date.now() - begun) / 1000
  await comeBack(t, victim, channel, { observers, lost, all })
  return `told after ${removed.toFixed(1)} s, lists right after ${right.toFixed(1)} s; promised within ${RECOVERY_SECONDS_MAX} s`
}

/** The gateway is started again and its users come back: each is reported once, and no other user is. */
async function comeBack(t, victim, channel, { observers, lost, all }) {
  const before = observers.map((observer) => told(observer, 'member_added').length)
  t.cluster.startGateway(t.cluster.gateways[victim])
  await until('the cluster is whole', () => t.cluster.isWhole(), PATIENCE_MS)
  for (const user of lost) await member(t, t.cluster.gateways[victim], channel, user)
  for (const gateway of t.cluster.gateways) {
    await until(`everybody, by ${gateway.name}`, async () => String(await users(t, gateway, channel)) === String(all), PATIENCE_MS)
  }
  await t.sdk('shop', t.cluster.gateways[victim]).trigger(channel, 'end', {})
  for (const [n, observer] of observers.entries()) {
    await observer.gets('end', channel)
    same(`the users that ${observer.user} at ${observer.at.name} saw removed`, told(observer, 'member_removed').sort(), lost)
    same(`the users that ${observer.user} at ${observer.at.name} saw added again`, told(observer, 'member_added').slice(before[n]).sort(), lost)
  }
}

async function cacheAfterCrash(t, patient) {
  const channel = await channelAt(t, 1, 'presence-cache-crash')
  const [first, home, third] = t.cluster.gateways
  await t.sdk('shop', first).trigger(channel, 'price', { cents: 7 })
  const begun = Date.now()
  const seconds = () => ((Date.now() - begun) / 1000).toFixed(1)
  await t.cluster.kill(home.name)
  if (patient) {
    await until('the others have noticed', async () => await t.cluster.metric(first, 'broadgate_gateway_peers') === 1, PATIENCE_MS)
    await until('the list is right', async () => String(await users(t, third, channel)) === 'g1-a', PATIENCE_MS)
  }
  const late = await t.raw({ at: third })
  late.user = 'late'
  join(t, late, channel)
  await until('the subscription is confirmed', () => late.got('pusher_internal:subscription_succeeded').length > 0, PATIENCE_MS)
  const confirmed = seconds()
  await until('the event, or a miss', () => late.got('price').length + late.got('pusher:cache_miss').length > 0, PATIENCE_MS)
  const { presence } = JSON.parse(late.got('pusher_internal:subscription_succeeded')[0].data)
  const came = { members: presence.ids.sort(), event: late.got('price')[0]?.data }
  same(`what it gets ${confirmed} s after the crash`, came, { members: ['g1-a', 'late'], event: '{"cents":7}' })
  return `confirmed after ${confirmed} s`
}

export default [
  { name: "kill -9 of the gateway that holds the channel's home", settings: ['three'], run: (t) => crash(t, { home: 1 }) },
  { name: 'kill -9 of a gateway that does not hold it', settings: ['three'], run: (t) => crash(t, { home: 0 }) },
  {
    name: 'a gateway that sleeps beyond its lease leaves no ghosts and tells nothing twice',
    settings: ['three'],
    async run(t) {
      const victim = 1
      const channel = await channelAt(t, victim, 'presence-asleep')
      const { gateways } = t.cluster
      const ann = await member(t, gateways[0], channel, 'ann')
      const lost = await member(t, gateways[victim], channel, 'lost')
      const back = t.client({ at: gateways[victim], user: 'back' })
      await back.subscribed(channel)
      await until('ann knows all', () => told(ann, 'member_added').length === 2)
      const asleep = t.cluster.running.get(gateways[victim].name)
      const begun = Date.now()
      asleep.kill('SIGSTOP')
      await until('ann sees both removed', () => told(ann, 'member_removed').length >= 2, PATIENCE_MS)
      const removed = (Date.now() - begun) / 1000
      asleep.kill('SIGCONT')
      await until('who slept is closed', () => lost.closed, PATIENCE_MS)
      holds('with a code after which pusher-js comes back', lost.closed.code < 4000 || (lost.closed.code >= 4100 && lost.closed.code < 4300), lost.closed)
      await until('pusher-js has come back', () => told(ann, 'member_added').length >= 3, PATIENCE_MS)
      await until('the cluster is whole', () => t.cluster.isWhole(), PATIENCE_MS)
      for (const gateway of gateways) {
        await until(`ann, back and g1-a, by ${gateway.name}`, async () => String(await users(t, gateway, channel)) === 'ann,back,g1-a', PATIENCE_MS)
      }
      await t.sdk('shop', gateways[victim]).trigger(channel, 'end', {})
      await ann.gets('end', channel)
      same('who went', told(ann, 'member_removed').sort(), ['back', 'lost'])
      same('who came', told(ann, 'member_added').sort(), ['back', 'back', 'lost'])
      return `told after ${removed.toFixed(1)} s; closed with ${lost.closed.code}`
    },
  },
  {
    name: 'a cache channel with members keeps its event when its home is killed, once the cluster is right again',
    settings: ['three'],
    run: (t) => cacheAfterCrash(t, true),
  },
  {
    name: 'a subscriber of a cache channel whose home was just killed gets the right state',
    settings: ['three'],
    run: (t) => cacheAfterCrash(t, false),
  },
  {
    name: 'users of a gateway that was killed are offline to those who watch them',
    settings: ['three'],
    async run(t) {
      const { gateways } = await t.fresh(3)
      const told = []
      const ann = t.client({ at: gateways[0], user: 'ann', watchlist: ['bob', 'cid'] })
      for (const event of ['online', 'offline']) ann.pusher.user.watchlist.bind(event, ({ user_ids }) => told.push(...user_ids.map((user) => `${user} ${event}`)))
      await ann.signedIn()
      await t.client({ at: gateways[1], user: 'bob' }).signedIn()
      await t.client({ at: gateways[1], user: 'cid' }).signedIn()
      await t.client({ at: gateways[2], user: 'cid' }).signedIn()
      await until('both are online', () => told.includes('bob online') && told.includes('cid online'))
      const begun = Date.now()
      await t.cluster.kill(gateways[1].name)
      await until('bob is offline', () => told.lastIndexOf('bob offline') > told.indexOf('bob online'), PATIENCE_MS)
      const seconds = (Date.now() - begun) / 1000
      await t.sdk('shop', gateways[2]).sendToUser('ann', 'end', {})
      await ann.gets('end')
      same('the events that arrived', told.slice().sort(), ['bob offline', 'bob offline', 'bob online', 'cid offline', 'cid online'])
      return `told after ${seconds.toFixed(1)} s`
    },
  },
  {
    name: 'what is sent while the home is killed comes once and in order to all who stay',
    settings: ['three'],
    async run(t) {
      const channel = await channelAt(t, 1, 'presence-sending')
      const [first, home, third] = t.cluster.gateways
      const ears = [await member(t, first, channel, 'ann'), await member(t, third, channel, 'bob')]
      const server = t.sdk('shop', first, { timeout: 30_000 })
      const answered = []
      const refused = []
      let slowest = 0
      for (let n = 0, after = 0; after < 50; n++) {
        if (n === 50) await t.cluster.kill(home.name)
        const begun = Date.now()
        await server.trigger(channel, 'step', n).then(() => answered.push(n), (error) => refused.push([n, error.status, error.body]))
        slowest = Math.max(slowest, Date.now() - begun)
        // Fifty more once the others have noticed.
        if (n > 50 && await t.cluster.metric(first, 'broadgate_gateway_peers') === 1) after++
      }
      // Those that the dead gateway could not answer for are to be repeated: their subscribers may have them or not.
      holds('only publishes that may have missed a subscriber are refused', refused.every(([n, status]) => n >= 50 && status === 503), refused)
      await server.trigger(channel, 'end', {})
      for (const ear of ears) {
        await ear.gets('end', channel)
        const steps = ear.got('step', channel).map((frame) => Number(frame.data))
        const unsure = new Set(refused.map(([n]) => n))
        same(`what ${ear.user} heard at ${ear.at.name}`, steps.filter((n) => !unsure.has(n)), answered)
        same(`what ${ear.user} heard, once and in order`, steps, [...new Set(steps)].sort((a, b) => a - b))
      }
      return `${answered.length} events, ${refused.length} to be repeated, the slowest answered after ${(slowest / 1000).toFixed(1)} s`
    },
  },
  {
    name: 'kill -9 of the register disturbs no client',
    settings: ['three'],
    async run(t) {
      await t.fresh(3)
      const channel = t.name('presence-alone')
      const ann = await member(t, t.at(0), channel, 'ann')
      await t.cluster.kill('register')
      const bob = await member(t, t.at(1), channel, 'bob')
      await until('ann gets the event', () => told(ann, 'member_added').includes('bob'))
      await t.sdk().trigger(channel, 'still', { n: 1 })
      for (const raw of [ann, bob]) await raw.gets('still', channel)
    },
  },
  {
    name: 'a gateway that is stopped asks its clients to reconnect at once',
    settings: ['three'],
    async run(t) {
      await t.fresh(3)
      const channel = t.name('presence-drained')
      const ann = await member(t, t.at(0), channel, 'ann')
      const bob = await member(t, t.at(1), channel, 'bob')
      await until('ann gets the event', () => told(ann, 'member_added').length === 1)
      t.cluster.running.get(t.at(1).name).kill('SIGTERM')
      await until('bob is closed', () => bob.closed)
      holds('a code after which pusher-js comes back at once', bob.closed.code >= 4200 && bob.closed.code < 4300, bob.closed)
      await until('ann gets the event', () => told(ann, 'member_removed').length === 1)
      await until('the process ends', () => !t.cluster.running.has(t.at(1).name))
      same('the users that ann saw removed', told(ann, 'member_removed'), ['bob'])
    },
  },
]
