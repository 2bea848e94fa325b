// Waiting on conditions, and saying what was expected and what came.
import { isDeepStrictEqual, inspect } from 'node:util'

export const LIMIT_MS = 20_000
const LOOK_EVERY_MS = 10

/** Ends when `condition` holds, with what it gave. A condition that throws does not hold yet. */
export async function until(what, condition, limit = LIMIT_MS) {
  const end = Date.now() + limit
  let last
  for (;;) {
    try {
      const came = await condition()
      if (came) return came
      last = came
    } catch (error) {
      last = error
    }
    if (Date.now() > end) {
      throw new Mismatch(`${what}, within ${limit / 1000} s`, last)
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS))
  }
}

export class Mismatch extends Error {
  constructor(expected, came) {
    const shown = came instanceof Error ? came.message : show(came)
    super(`expected: ${expected}\n    came:     ${shown}`)
  }
}

export const show = (value) =>
  typeof value === 'string' ? value : inspect(value, { depth: 6, breakLength: 160, maxStringLength: 400 })

/** `came` equals `expected`; the order of keys does not matter. */
export function same(what, came, expected) {
  if (!isDeepStrictEqual(came, expected)) throw new Mismatch(`${what}: ${show(expected)}`, came)
}

export function holds(what, condition, came) {
  if (!condition) throw new Mismatch(what, came)
}

/** The promise fails; gives the error. */
export async function fails(what, promise) {
  let came
  try {
    came = await promise
  } catch (error) {
    return error
  }
  throw new Mismatch(`${what} is refused`, came?.status ?? came)
}
