// What the page says without a browser: figures, states, rates.
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import test from 'node:test'

// They are served as modules under a path of their own, and need nothing.
const load = (name) => import(`data:text/javascript,${encodeURIComponent(readFileSync(new URL(`../../src/dashboard/page/${name}`, import.meta.url), 'utf8'))}`)
const words = await load('words.js')
const { KEPT, Rates, between, points, roundUp, spanOf, spanWords } = await load('rates.js')

test('figures are short', () => {
  assert.deepEqual([0, 9999, 10_000, 104_321, 1_300_000].map(words.count), ['0', '9,999', '10.0k', '104k', '1.30M'])
  assert.deepEqual([0, 0.25, 9.96, 12.4, 2300].map(words.rate), ['0', '0.3', '10', '12', '2,300'])
  assert.deepEqual([0, 1023, 1024, 88 * 1024 ** 2].map(words.bytes), ['0 B', '1023 B', '1.0 KiB', '88.0 MiB'])
  assert.deepEqual([900, 61_000, 7_500_000, 1e9].map(words.age), ['0 s', '1 min', '2h 5m', '11d 13h'])
  assert.equal(words.counted(1, 'client'), '1 client')
  assert.equal(words.count(undefined), '?')
  assert.equal(words.clock(0, 0), '00:00:00')
  assert.equal(words.clock(0, 864e5), '1970-01-01 00:00:00')
})

const member = (incarnation, name, role = 'ROLE_GATEWAY', state = 'MEMBER_STATE_READY') => ({ incarnation, name, role, state, services: ['chat'] })
const known = (incarnation, more = {}) => ({ incarnation, name: incarnation, clients: 1, peers: ['gw-1', 'gw-2'], listener_services: {}, ...more })
const whole = () => ({
  register: 'r:1', register_heard: true, coverage: { complete: true, missing: [] },
  view: { members: [member('b', 'gw-2'), member('a', 'gw-1'), member('w', 'chat-1', 'ROLE_WORKER')] },
  gateways: [known('a'), known('b')], workers: [{ incarnation: 'w', name: 'chat-1', services: ['chat'], clients: 2 }],
})

test('healthy cluster has no troubles', () => {
  const status = whole()
  assert.deepEqual(words.gateways(status).map((one) => [one.name, one.state]), [['gw-1', 'ready'], ['gw-2', 'ready']])
  assert.deepEqual(words.troubles(status), [])
  assert.equal(words.totals(status).clients, 2)
})

test('each trouble is named, the worst first', () => {
  const status = whole()
  status.gateways = [known('a', {
    peers: [], listener_services: { web: 'shop' }, redis_readers: [{ app: 'x', connected: false }],
    evidence: { webhooks: [{ app: 'y', why: 'it answers 500' }], silent_workers: [{ name: 'chat-1', seconds: 9 }] },
  })]
  status.register_heard = false
  status.view.members[1].state = 'MEMBER_STATE_DRAINING'
  const all = words.troubles(status)
  const said = all.map((one) => one.what).join('\n')
  for (const part of ['r:1 is not heard', 'gw-2 does not answer', 'service shop', 'Redis of app x', 'webhook of app y', 'chat-1 has not answered', 'gw-1 is draining']) {
    assert.match(said, new RegExp(part))
  }
  assert.deepEqual(all.map((one) => one.level), [...all.map((one) => one.level)].sort())
  assert.equal(said.match(/gw-2 does not answer/g).length, 1)
})

test('what vanished is named, and for how long', () => {
  const status = whole()
  const removed = (name, seconds, role = 'ROLE_GATEWAY') => ({ incarnation: `${name}${seconds}`, name, role, age_ms: seconds * 1000 })
  status.gateways[0].evidence = { removed: [removed('gw-3', 40), removed('gw-2', 60), removed('gw-2', 150), removed('chat-2', 9, 'ROLE_WORKER'), removed('gw-9', 700)] }
  status.gateways[1].evidence = { removed: [removed('gw-3', 40)] }
  assert.deepEqual(words.troubles(status).map((one) => [one.level, one.what]), [
    ['bad', 'gw-3 was removed 40 s ago: it did not beat, and its clients have lost it'],
    ['bad', 'chat-2 was removed 9 s ago: it did not beat'],
    ['warn', 'gw-2 was removed 1 min ago: it did not beat, and is back since'],
  ])
})

test('what hides or turns a text is seen', () => {
  assert.equal(words.visible('\u202enimda\u202c user'), '\\u{202e}nimda\\u{202c} user')
  assert.equal(words.visible('gr\u00fc\u00dfe, \u65e5\u672c\n\ud83d\ude00'), 'gr\u00fc\u00dfe, \u65e5\u672c\n\ud83d\ude00')
})

test('gateway that the answer lacks and the view has left is named', () => {
  const status = whole()
  status.coverage = { complete: false, missing: ['gw-3'] }
  assert.deepEqual(words.troubles(status).map((one) => one.what), ['gw-3 does not answer'])
})

test('worker that has not joined is shown', () => {
  const status = whole()
  status.workers.push({ incarnation: 'x', name: 'python-1', services: [] })
  assert.deepEqual(words.workers(status).map((one) => one.state), ['ready', 'not joined'])
})

test('rates are differences, and never negative', () => {
  const counters = (at_us, messages_in, messages_out, more = {}) => ({ incarnation: 'a', counters: { at_us, messages_in, messages_out, bytes_out: 0, ...more } })
  const rate = between(counters(1e6, 10, 100), counters(3e6, 30, 100, { closes: { lost: 4 }, drops: { slow: 2 }, shards: [{ cpu_us: 5 }] }))
  assert.deepEqual([rate.in, rate.out, rate.drops, rate.closes, rate.busy], [10, 0, 1, { lost: 2 }, [0]])
  const restarted = between(counters(9e6, 10, 100), counters(10e6, 0, 0))
  assert.deepEqual([restarted.in, restarted.out], [0, 0])
  assert.deepEqual(between(undefined, { messages_in_per_s: 3, messages_out_per_s: 4 }), { in: 3, out: 4 })
  const rates = new Rates()
  for (let n = 0; n < KEPT + 20; n += 1) rates.take({ gateways: [counters(n * 2e6, n * 20, n * 40)] }, n * 2000)
  assert.equal(rates.all.length, KEPT)
  assert.deepEqual([rates.now('a').in, rates.now('a').out, rates.all.at(-1).out], [10, 20, 20])
  rates.take({ gateways: [] }, 1e9)
  assert.equal(rates.now('a'), undefined)
})

test('line ends at the right edge, and its top is round', () => {
  const line = points([{ at: 0, value: 0 }, { at: 150_000, value: 5 }, { at: 300_000, value: 10 }], 300, 80, 300_000, 10)
  assert.equal(line, '0.0,79.0 150.0,40.0 300.0,1.0')
  assert.deepEqual([0, 59_000, 80_000, 170_000, 9e9].map((at) => spanOf([{ at: 0 }, { at }])), [60_000, 60_000, 75_000, 150_000, 300_000], 'the line fills the chart')
  assert.deepEqual([60_000, 75_000, 120_000, 150_000].map(spanWords), ['1 min', '75 s', '2 min', '2.5 min'])
  assert.equal(spanOf([]), 60_000)
  assert.deepEqual([0, 11, 104, 2300].map(roundUp), [10, 20, 200, 5000])
})
