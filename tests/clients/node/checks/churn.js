// Many members join and leave at once, from a seed: the events that each observer gets must add up.
import { join, member, told, users } from '../lib/members.js'
import { holds, same, until } from '../lib/wait.js'

const USERS = 8
const ACTORS = 24
const STEPS = 600

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function random(seed) {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296
  }
}

/** Replays one observer's events; no member is added twice, or removed without having been added. */
function replay(observer, channel) {
  const there = new Set()
  for (const { event, channel: where, data } of observer.frames) {
    if (where !== channel) continue
    const said = typeof data === 'string' ? JSON.parse(data) : data
    if (event === 'pusher_internal:subscription_succeeded') said.presence.ids.forEach((id) => there.add(id))
    if (event === 'pusher_internal:member_added') {
      holds(`${observer.user} sees ${said.user_id} added, who was not a member`, !there.has(said.user_id), [...there])
      there.add(said.user_id)
    }
    if (event === 'pusher_internal:member_removed') {
      holds(`${observer.user} sees ${said.user_id} removed, who was a member`, there.delete(said.user_id), [...there])
    }
  }
  return [...there].sort()
}

/** Calls `strike`, if given, in the middle; no member acts at the gateway that it kills. */
async function churn(t, seed, strike) {
  const next = random(seed)
  const channel = `${t.name('presence-churn')}-${seed}`
  const gateways = t.cluster.gateways.filter((gateway) => gateway !== strike?.victim)
  const observers = await Promise.all(gateways.map((at, n) => member(t, at, channel, `observer-${n}`)))
  const actors = await Promise.all(Array.from({ length: ACTORS }, async (_, n) => {
    const raw = await t.raw({ at: gateways[n % gateways.length] })
    return Object.assign(raw, { user: `user-${n % USERS}`, inside: false })
  }))
  for (let step = 0; step < STEPS; step++) {
    if (step === STEPS / 2) await strike?.act()
    const actor = actors[Math.floor(next() * actors.length)]
    if (actor.inside === null) continue
    const what = next()
    if (what < 0.02) {
      actor.close()
      actor.inside = null
    } else if (actor.inside) {
      actor.say('pusher:unsubscribe', { channel })
      actor.inside = false
    } else {
      join(t, actor, channel)
      actor.inside = true
    }
    // Now and then all is sent before more is asked for.
    if (what > 0.97) await actor.settled()
  }
  const expected = [...new Set([...actors.filter((actor) => actor.inside), ...observers].map(({ user }) => user))].sort()
  for (const gateway of gateways) {
    await until(`${gateway.name} names ${expected}`, async () => String(await users(t, gateway, channel)) === String(expected), 60_000)
  }
  await t.sdk('shop', gateways[0]).trigger(channel, 'end', {})
  for (const observer of observers) {
    await observer.gets('end', channel)
    same(`the members that ${observer.user} has seen`, replay(observer, channel), expected)
  }
  for (const actor of actors) if (actor.inside) {
    await actor.gets('end', channel)
    same('errors', actor.got('pusher:error'), [])
  }
  return told(observers[0], 'member_added').length
}

// CLIENTS_SEEDS=7,8,9 takes other ones.
const SEEDS = process.env.CLIENTS_SEEDS?.split(',').map(Number) ?? [1, 2, 3]

const plain = SEEDS.map((seed) => ({
  name: `${ACTORS} connections of ${USERS} users come and go ${STEPS} times, seed ${seed}`,
  run: async (t) => `${await churn(t, seed)} comings were told`,
}))

const struck = SEEDS.map((seed) => ({
  name: `the same while a gateway is killed, seed ${seed}`,
  settings: ['three'],
  async run(t) {
    await t.fresh(3)
    const victim = t.cluster.gateways[1]
    const strike = { victim, act: () => t.cluster.kill(victim.name) }
    return `${await churn(t, seed, strike)} comings were told`
  },
}))

export default [...plain, ...struck]
