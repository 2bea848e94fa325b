// Presence when gateways go away without a word.
import { RECOVERY_SECONDS_MAX } from '../lib/cluster.js'
import { fetched } from '../lib/sdk.js'
import { holds, same, until } from '../lib/wait.js'

const PATIENCE_MS = 60_000

/** A member that does not come back by itself. */
async function member(t, at, channel, user) {
  const raw = await t.raw({ at })
  raw.user = user
  raw.say('pusher:subscribe', { channel, ...t.sdk('shop', at).authorizeChannel(raw.socketId, channel, { user_id: user, user_info: { name: user } }) })
  await raw.gets('pusher_internal:subscription_succeeded', channel)
  return raw
}

const told = (raw, event) => raw.got(`pusher_internal:${event}`).map((frame) => JSON.parse(frame.data).user_id)

/** A fresh cluster, and a channel whose home is at the gateway with this number: the one that counts a home more. */
async function channelAt(t, number) {
  const { gateways } = await t.fresh(3)
  const counts = () => Promise.all(gateways.map((gateway) => t.cluster.metric(gateway, 'gateway_homes')))
  let before = [0, 0, 0]
  for (let n = 1; n <= 60; n++) {
    const channel = `${t.name('presence-crash')}-${n}`
    await member(t, gateways[0], channel, 'g1-a')
    let after
    // Gateways count once in a while, so it takes a moment; nothing else makes homes here.
    await until(`${n} homes`, async () => {
      after = await counts()
      return after.reduce((sum, count) => sum + count) === n
    })
    if (after[number] > before[number]) return channel
    before = after
  }
  throw new Error('expected: a channel with its home there within 60 names')
}

const users = async (t, gateway, channel) =>
  (await fetched(t.sdk('shop', gateway, { timeout: 10_000 }), `/channels/${channel}/users`)).users.map(({ id }) => id).sort()

async function crash(t, { home }) {
  const victim = 1
  const channel = await channelAt(t, home)
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
    await until(`${observer.user} is told of both`, () => told(observer, 'member_removed').length >= 2, PATIENCE_MS)
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

/** The gateway starts anew, its users come back: told once each, and nobody is told of any other. */
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
    same(`whom ${observer.user} at ${observer.at.name} was told to have gone`, told(observer, 'member_removed').sort(), lost)
    same(`whom ${observer.user} at ${observer.at.name} was told to have come back`, told(observer, 'member_added').slice(before[n]).sort(), lost)
  }
}

export default [
  { name: "kill -9 of the gateway that holds the channel's home", settings: ['three'], run: (t) => crash(t, { home: 1 }) },
  { name: 'kill -9 of a gateway that does not hold it', settings: ['three'], run: (t) => crash(t, { home: 0 }) },
  {
    name: 'kill -9 of the register disturbs nobody',
    settings: ['three'],
    async run(t) {
      await t.fresh(3)
      const channel = t.name('presence-alone')
      const ann = await member(t, t.at(0), channel, 'ann')
      await t.cluster.kill('register')
      const bob = await member(t, t.at(1), channel, 'bob')
      await until('ann is told', () => told(ann, 'member_added').includes('bob'))
      await t.sdk().trigger(channel, 'still', { n: 1 })
      for (const raw of [ann, bob]) await raw.gets('still', channel)
    },
  },
  {
    name: 'a gateway that is told to stop sends its clients to come back at once',
    settings: ['three'],
    async run(t) {
      await t.fresh(3)
      const channel = t.name('presence-drained')
      const ann = await member(t, t.at(0), channel, 'ann')
      const bob = await member(t, t.at(1), channel, 'bob')
      await until('ann is told', () => told(ann, 'member_added').length === 1)
      t.cluster.running.get(t.at(1).name).kill('SIGTERM')
      await until('bob is closed', () => bob.closed)
      holds('a code after which pusher-js comes back at once', bob.closed.code >= 4200 && bob.closed.code < 4300, bob.closed)
      await until('ann is told', () => told(ann, 'member_removed').length === 1)
      await until('the process ends', () => !t.cluster.running.has(t.at(1).name))
      same('whom ann was told to have gone', told(ann, 'member_removed'), ['bob'])
    },
  },
]
