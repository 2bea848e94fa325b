// Rates over the last minutes, from the differences of two looks. Pure but for the store at the end.

/** Looks that are kept: five minutes at one in two seconds. */
export const KEPT = 150

/** The rates of a gateway between two looks; of gateways that count nothing, what they say themselves. */
export function between(before, now, ms) {
  const counts = now.messages_in != null && before?.messages_in != null && ms > 0
  if (!counts) return { in: now.messages_in_per_s ?? 0, out: now.messages_out_per_s ?? 0 }
  const per = (name) => Math.max(0, (now[name] - before[name]) * 1000 / ms)
  return { in: per('messages_in'), out: per('messages_out') }
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
    const ms = this.last ? at - this.last.at : 0
    const now = new Map(status.gateways.map((one) => [one.incarnation, one]))
    let [total_in, total_out] = [0, 0]
    for (const [incarnation, one] of now) {
      const rate = between(before.get(incarnation), one, ms)
      total_in += rate.in
      total_out += rate.out
      const kept = this.of.get(incarnation) ?? []
      kept.push({ at, ...rate })
      if (kept.length > KEPT) kept.shift()
      this.of.set(incarnation, kept)
    }
    for (const incarnation of this.of.keys()) if (!now.has(incarnation)) this.of.delete(incarnation)
    this.all.push({ at, in: total_in, out: total_out })
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

/** The next round number: the top of a chart. */
export function roundUp(value) {
  if (value <= 10) return 10
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value)
}

export const rates = new Rates()
