// The checks, one after the other in one browser; see `run` beside this file.
import { createRequire } from 'node:module'
import { checks as access } from './access.js'
import { faults, minutes, session, shows } from './browser.js'
import { Cluster } from './cluster.js'
import { checks as underFaults } from './faults.js'
import { checks as looks } from './looks.js'

const { chromium } = createRequire(new URL('../clients/node/package.json', import.meta.url))('playwright-core')
const only = process.argv.includes('--only') ? process.argv[process.argv.indexOf('--only') + 1] : ''
const checks = { ...access, ...looks, ...underFaults }

// Those that mostly wait, in sessions of their own; and those before which they have to be over.
const ASIDE = ['a token is asked', 'a reader is', 'a token of one app', 'with certificates', 'whose token', 'an empty cluster', 'gateways that are busy', 'what is hidden']
const FAULTS = ['a page under', 'a test send', 'a paused gateway']

const LIMIT_MS = 180_000 + minutes * 60_000
const began = Date.now()
setTimeout(() => {
  console.log(`FAIL  the suite has not ended within ${LIMIT_MS / 1000} s`)
  process.exit(1)
}, LIMIT_MS).unref()
const cluster = await Cluster.start()
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'] })
let failed = 0
try {
  const one = await cluster.client(cluster.gateways[0], 'ann', 'orders.eu')
  for (const [uid, at] of [['bob', 1], ['cem', 2]]) await cluster.client(cluster.gateways[at], uid, 'orders.eu')
  cluster.vault = await cluster.client(cluster.gateways[0], 'vera', 'secret-group', 'vault')
  const to = (app, group) => ({ to: { app, groups: [group] }, text: 'x'.repeat(40), no_receipt: true })
  const traffic = setInterval(() => {
    for (const send of [to('shop', 'orders.eu'), to('vault', 'secret-group')]) cluster.call('Send', send, cluster.gateways[1], 'the-suite').catch(() => null)
  }, 50)
  const context = await session(browser)
  const page = await context.newPage()
  await page.goto(await cluster.dashboard())
  await shows(page, 'All is well')
  const play = async ([name, check]) => {
    const start = Date.now()
    try {
      await check({ cluster, browser, context, page, one })
      console.log(`ok    ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`)
    } catch (error) {
      failed += 1
      console.log(`FAIL  ${name}\n    ${error.stack}`)
    }
    for (const tab of context.pages()) faults.push(...await tab.evaluate(() => window.breaches?.splice(0) ?? []).catch(() => []))
  }
  const all = Object.entries(checks).filter(([name]) => name.includes(only))
  // Those that mostly wait, in sessions of their own, go on beside the others, until gateways are stopped.
  const isAside = ([name]) => ASIDE.some((begin) => name.startsWith(begin))
  const beside = all.filter(isAside).reduce((before, check) => before.then(() => play(check)), Promise.resolve())
  for (const check of all.filter((check) => !isAside(check))) {
    if (FAULTS.some((begin) => check[0].startsWith(begin))) await beside
    await play(check)
  }
  await beside
  clearInterval(traffic)
  if (faults.length) {
    failed += 1
    console.log(`FAIL  no breach of the policy, no error of a script, no request elsewhere\n    ${faults.slice(0, 10).join('\n    ')}`)
  } else console.log('ok    no breach of the policy, no error of a script, no request elsewhere')
} finally {
  if (failed) console.log(cluster.logs())
  await browser.close()
  await cluster.stop()
}
console.log(`${failed ? `${failed} failed` : 'all is well'}, ${((Date.now() - began) / 1000).toFixed(1)} s`)
process.exit(failed ? 1 : 0)
