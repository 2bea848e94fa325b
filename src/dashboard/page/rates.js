// Rates over the last minutes, from the differences of two looks. Pure but for the store at the end.

/** Looks that are kept: five minutes at one in two seconds. */
export const KEPT = 150

/** The rates of a gateway between two looks; of one that counts nothing, what it says itself. */
export function between(before, now) {
  const [first, last] = [before?.counters, now.counters]
  const us = last && first ? last.at_us - first.at_us : 0
  if (us <= 0) return { in: now.messages_in_per_s ?? 0, out: now.messages_out_per_s ?? 0 }
  const per = (of) => Math.max(0, (of(last) - of(first)) * 1e6 / us)
  const sum = (counts) => Object.values(counts ?? {}).reduce((total, one) => total + one, 0)
  const closes = {}
  for (const cause of Object.keys(last.closes ?? {})) closes[cause] = per((counters) => counters.closes?.[cause] ?? 0)
  const busy = (last.shards ?? []).map((shard, n) => Math.min(1, Math.max(0, (shard.cpu_us - (first.shards?.[n]?.cpu_us ?? shard.cpu_us)) / us)))
  return {
    in: per((counters) => counters.messages_in), out: per((counters) => counters.messages_out),
    bytes_out: per((counters) => counters.bytes_out), drops: per((counters) => sum(counters.drops)), closes, busy,
  }
}

export class Rates {
  constructor() {
    this.last = null
    this.of = new Map()
    this.all = []
  }

  /** Takes the status of a moment, in milliseconds of any steady clock. */
  take(status, at) {
    if (this.last && at - this.last.at < 500) return
    const before = this.last?.gateways ?? new Map()
    const now = new Map(status.gateways.map((one) => [one.incarnation, one]))
    const total = { in: 0, out: 0, drops: 0 }
    let clients = 0
    for (const [incarnation, one] of now) {
      const rate = between(before.get(incarnation), one)
      for (const name of Object.keys(total)) total[name] += rate[name] ?? 0
      clients += one.clients ?? 0
      const kept = this.of.get(incarnation) ?? []
      kept.push({ at, ...rate })
      if (kept.length > KEPT) kept.shift()
      this.of.set(incarnation, kept)
    }
    for (const incarnation of this.of.keys()) if (!now.has(incarnation)) this.of.delete(incarnation)
    this.all.push({ at, clients, ...total })
    if (this.all.length > KEPT) this.all.shift()
    this.last = { at, gateways: now }
  }

  /** The newest rates of a gateway. */
  now(incarnation) {
    return this.of.get(incarnation)?.at(-1)
  }
}

/** The points of a line in a box, the newest at its right edge; steps are as wide as time. */
export function points(values, width, height, span_ms, most) {
  if (!values.length) return ''
  const end = values.at(-1).at
  const top = Math.max(most, 1)
  return values
    .filter((one) => end - one.at <= span_ms)
    .map((one) => {
      const x = width - (end - one.at) / span_ms * width
      const y = height - 1 - one.value / top * (height - 2)
      return `${x.toFixed(1)},${y.toFixed(1)}`
    })
    .join(' ')
}

/** The time that a chart covers, in round steps: as much as is known, from one minute to five. */
export function spanOf(values) {
  const known = values.length ? values.at(-1).at - values[0].at : 0
  const step = known < 120_000 ? 15_000 : 30_000
  return Math.min(300_000, Math.max(60_000, Math.floor(known / step) * step))
}

/** "75 s", "2.5 min". */
export const spanWords = (span_ms) => (span_ms % 60_000 && span_ms < 120_000 ? `${span_ms / 1000} s` : `${span_ms / 60_000} min`)

/** The next round number: the top of a chart. */
export function roundUp(value) {
  if (value <= 10) return 10
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value)
}

export const rates = new Rates()
