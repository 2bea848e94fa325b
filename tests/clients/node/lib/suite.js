// Runs checks in their settings and keeps what came of them.
import path from 'node:path'
import { Client } from './client.js'
import { Cluster } from './cluster.js'
import { Raw } from './raw.js'
import { sdk } from './sdk.js'

const CHECK_LIMIT_MS = 180_000
/** For what is not expected to pass. */
const PENDING_LIMIT_MS = 20_000
/** Of a check that failed: more would hide what matters. */
const CLIENTS_SHOWN = 8

/** What a check may use; everything that it opens is closed after it. */
class Bench {
  #closers = []
  #opened = []
  #seed

  constructor(cluster, setting, suite, seed) {
    Object.assign(this, { cluster, setting, suite })
    this.#seed = seed
  }

  /** Where subscribers are: with three gateways on the first two, in turn. */
  at(n = 0) {
    const { gateways } = this.cluster
    return gateways[gateways.length === 1 ? 0 : n % 2]
  }

  /** Where publishers are: never with the subscribers, if there is a choice. */
  get apart() {
    return this.cluster.gateways.at(-1)
  }

  /** A name that no other check uses. */
  name(prefix) {
    return `${prefix}-${this.setting}-${this.#seed}`
  }

  sdk(app = 'shop', at = this.apart, options = {}) {
    return sdk(at, app, options)
  }

  client(options = {}) {
    const client = new Client({ at: this.at(0), ...options })
    this.#opened.push(client)
    return client
  }

  async raw(options = {}) {
    const raw = await Raw.open({ at: this.at(0), ...options })
    this.#opened.push(raw)
    return raw
  }

  onEnd(close) {
    this.#closers.unshift(close)
  }

  /** A cluster of its own, for a check that breaks it. */
  async fresh(gateways, more) {
    const work = path.join(this.suite.work, `${this.setting}-${this.#seed}`)
    this.cluster = await Cluster.start({ executable: this.suite.executable, gateways, work, more })
    this.onEnd(() => this.cluster.stop())
    return this.cluster
  }

  seen() {
    const shown = this.#opened.slice(-CLIENTS_SHOWN)
    return shown.map((it) => `--- client ${this.#opened.indexOf(it) + 1}: ${it.story()}`).join('\n')
  }

  async end() {
    for (const it of this.#opened) it.close()
    for (const close of this.#closers) await close()
  }
}

export class Suite {
  rows = new Map()
  #benches = 0

  constructor({ executable, work, only }) {
    Object.assign(this, { executable, work, only })
  }

  wants(group, check) {
    return !this.only || `${group}: ${check.name}`.toLowerCase().includes(this.only.toLowerCase())
  }

  async runSetting(setting, gateways, groups) {
    const wanted = Object.entries(groups).map(([group, checks]) => [group, checks.filter((check) =>
      this.wants(group, check) && (check.settings ?? ['one', 'three']).includes(setting))])
    if (wanted.every(([, checks]) => checks.length === 0)) return
    console.log(`\n== ${gateways === 1 ? 'one gateway' : 'three gateways, publisher and subscribers apart'}`)
    const cluster = await Cluster.start({ executable: this.executable, gateways, work: path.join(this.work, setting) })
    try {
      for (const [group, checks] of wanted) {
        for (const check of checks) await this.runCheck(cluster, setting, group, check)
      }
    } finally {
      await cluster.stop()
    }
  }

  async runCheck(cluster, setting, group, check) {
    const bench = new Bench(cluster, setting, this, ++this.#benches)
    const begun = Date.now()
    let result
    let note
    try {
      note = await limited(check.run(bench), check.pending ? PENDING_LIMIT_MS : CHECK_LIMIT_MS)
      bench.cluster.checkLogs()
      result = 'passed'
    } catch (error) {
      result = error.skipped ? 'skipped' : 'failed'
      note = result === 'skipped' ? error.message : `${error.message}\n${where(error)}\n${bench.seen()}\n${error.logs ?? bench.cluster.logTails()}`
    }
    await bench.end().catch((error) => { result = 'failed'; note = `ending: ${error.stack}` })
    const seconds = (Date.now() - begun) / 1000
    if (check.pending) {
      note = result === 'passed' ? 'it passes now: take the mark off' : `${check.pending}; now ${String(note).split('\n').slice(0, 2).join(' ')}`
      result = 'pending'
    }
    this.note(setting, group, check.name, { result, seconds, note })
  }

  note(setting, group, name, outcome) {
    const id = `${group}: ${name}`
    const row = this.rows.get(id) ?? {}
    row[setting] = outcome
    this.rows.set(id, row)
    const word = outcome.result === 'failed' ? 'FAILED' : outcome.result
    console.log(`${word.padEnd(8)} ${id} (${outcome.seconds.toFixed(1)} s)`)
    if (outcome.note) console.log(String(outcome.note).replace(/^/gm, '    '))
  }

  /** The table; true if nothing failed. */
  report() {
    const cell = (outcome) => (outcome ? `${outcome.result} ${outcome.seconds.toFixed(1)}` : '–')
    const width = Math.max(20, ...[...this.rows.keys()].map((id) => id.length))
    console.log(`\n${'what'.padEnd(width)}  ${'one, s'.padEnd(14)}  three, s`)
    const counts = {}
    for (const [id, row] of this.rows) {
      console.log(`${id.padEnd(width)}  ${cell(row.one).padEnd(14)}  ${cell(row.three)}`)
      for (const outcome of Object.values(row)) counts[outcome.result] = (counts[outcome.result] ?? 0) + 1
    }
    const { passed = 0, failed = 0, pending = 0, skipped = 0 } = counts
    console.log(`\n${passed} passed, ${failed} failed, ${pending} pending, ${skipped} skipped`)
    return failed === 0
  }
}

/** What cannot be had here. */
export class Skipped extends Error {
  skipped = true
}

function where(error) {
  return String(error.stack).split('\n').filter((line) => line.includes('/checks/')).slice(0, 2).join('\n')
}

function limited(promise, limit) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`expected: an end within ${limit / 1000} s`)), limit)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}
