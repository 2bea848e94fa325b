// Members of presence channels that act only on command, and the home of a channel.
import { fetched } from './sdk.js'
import { until } from './wait.js'

/** A member that does not come back by itself. */
export async function member(t, at, channel, user) {
  const raw = await t.raw({ at })
  raw.user = user
  join(t, raw, channel)
  await raw.gets('pusher_internal:subscription_succeeded', channel)
  return raw
}

/** Asks to be let in, and does not wait. */
export function join(t, raw, channel) {
  const signed = t.sdk('shop', raw.at).authorizeChannel(raw.socketId, channel, { user_id: raw.user, user_info: { name: raw.user } })
  raw.say('pusher:subscribe', { channel, ...signed })
}

/** The users it got `member_added` or `member_removed` of. */
export const told = (raw, event) => raw.got(`pusher_internal:${event}`).map((frame) => JSON.parse(frame.data).user_id)

/** Who is there, as a gateway tells it. */
export const users = async (t, gateway, channel) =>
  (await fetched(t.sdk('shop', gateway, { timeout: 10_000 }), `/channels/${channel}/users`)).users.map(({ id }) => id).sort()

/** A fresh cluster of three, and a presence channel (with the member `g1-a`) whose home is at the gateway with this
 * number: the one that counts a home more. */
export async function channelAt(t, number, prefix) {
  const { gateways } = await t.fresh(3)
  const counts = () => Promise.all(gateways.map((gateway) => t.cluster.metric(gateway, 'broadgate_gateway_homes')))
  let before = [0, 0, 0]
  for (let n = 1; n <= 60; n++) {
    const channel = `${t.name(prefix)}-${n}`
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
