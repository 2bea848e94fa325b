// Pictures of every page, of a cluster with some minutes of traffic; see `run` beside this file.
import { mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createRequire } from 'node:module'
import { until } from '../clients/node/lib/wait.js'
import { Cluster } from './cluster.js'
import { withPalette } from './palette.js'

const require = createRequire(new URL('../clients/node/package.json', import.meta.url))
const { chromium } = require('playwright-core')
const WebSocket = require('ws')
const option = (name, without) => process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : without
const folder = path.resolve(option('--pictures'))
const minutes = Number(option('--minutes', 3))
const SIZES = { wide: { width: 1280, height: 860 }, phone: { width: 360, height: 740 } }
const DEPLOYED = { 'overview-wide-light': 'overview', 'group-wide-dark': 'group', 'live-wide-light': 'live', 'overview-phone-dark': 'phone' }
const USERS = ['ann', 'bob', 'cem', 'dora', 'eli', 'fay', 'gus', 'hana', 'ivo', 'june', 'kai', 'lea']
const GROUPS = ['orders.eu', 'orders.us', 'orders.asia', 'prices', 'chat.lobby', 'chat.support']

/** Clients that come, and what is sent to them and by them: more and less, as people do. */
async function traffic(cluster) {
  const clients = []
  for (let n = 0; n < 36; n += 1) {
    const client = await cluster.client(cluster.gateways[[0, 1, 1, 2, 0, 2, 2][n % 7]], USERS[n % USERS.length], GROUPS[n % 3])
    await cluster.call('Join', { app: 'shop', clients: [client.id], groups: GROUPS.slice(3, 4 + n % 3) })
    clients.push(client)
  }
  for (let n = 0; n < 5; n += 1) await cluster.client(cluster.gateways[n % 3], USERS[n], 'ledger', 'vault')
  const began = Date.now()
  const quietly = (promise) => promise.catch(() => null)
  const wave = (period, phase) => 0.5 + 0.5 * Math.sin((Date.now() - began) / period * 2 * Math.PI + phase)
  const send = (app, group, bytes, by) => quietly(cluster.call('Send', { to: { app, groups: [group] }, text: 'x'.repeat(bytes), no_receipt: true }, cluster.gateways[Math.floor(Math.random() * 3)], by))
  const timers = [
    setInterval(() => { GROUPS.forEach((group, n) => { if (Math.random() < 0.15 + 0.85 * wave(70_000 + 9000 * n, n)) send('shop', group, 60 + 150 * n, n < 3 ? 'orders' : 'prices') }) }, 60),
    setInterval(() => send('vault', 'ledger', 400, 'ledger'), 400),
    setInterval(() => { const client = clients[Math.floor(Math.random() * clients.length)]; if (client.readyState === 1 && Math.random() < wave(50_000, 2)) client.send('hello') }, 25),
  ]
  return { clients, stop: () => timers.forEach(clearInterval) }
}

/** What goes wrong on any day: a client that was disconnected, one that left, one that was refused. */
async function mishaps(cluster, clients) {
  await cluster.call('Close', { to: { app: 'shop', clients: [clients[7].id] }, code: 4000, reason: 'signed out elsewhere' })
  clients[11].close()
  clients[20].terminate()
  await fetch(`http://127.0.0.1:${cluster.gateways[0].internal}/v1/Status`, { method: 'POST', body: '{}' })
  for (let n = 0; n < 3; n += 1) {
    const refused = new WebSocket(`ws://127.0.0.1:${cluster.gateways[1].client}/ws/shopp`)
    await new Promise((resolve) => refused.once('error', resolve))
  }
}

const cluster = await Cluster.start()
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking'] })
try {
  mkdirSync(folder, { recursive: true })
  for (const name of readdirSync(folder).filter((name) => name.endsWith('.png'))) rmSync(path.join(folder, name))
  const { clients, stop } = await traffic(cluster)
  const context = await browser.newContext({ viewport: SIZES.wide, locale: 'en-GB', reducedMotion: 'reduce' })
  const page = await context.newPage()
  await page.goto(await cluster.dashboard())
  await page.getByRole('navigation').waitFor()
  await new Promise((resolve) => setTimeout(resolve, minutes * 60_000))
  await mishaps(cluster, clients)
  const one = clients[0]
  const pages = {
    overview: '#/overview', clients: '#/clients?app=shop', client: `#/client?app=shop&id=${one.id}`, groups: '#/groups?app=shop', group: '#/group?app=shop&group=orders.eu',
    apps: '#/apps', app: '#/app?app=shop', workers: '#/workers', events: '#/events', doctor: '#/doctor', order: '#/group?app=shop&group=orders.eu', live: `#/client?app=shop&id=${one.id}`,
  }
  for (const [name, hash] of Object.entries(pages)) {
    await page.evaluate((to) => { location.hash = to }, hash)
    await until(`${name} is drawn`, async () => {
      const shown = await page.locator('body').innerText()
      return shown.includes('as of') && !/Asking|Examining|being measured/.test(shown)
    })
    if (name === 'live') {
      await page.getByRole('button', { name: 'Watch' }).click()
      await page.getByRole('log').waitFor()
      await until('lines have come', async () => await page.locator('.line').count() > 12)
      await page.getByRole('heading', { name: 'Live' }).scrollIntoViewIfNeeded()
    }
    if (name === 'order') {
      await page.getByRole('button', { name: 'Send a test message…' }).click()
      await page.getByRole('textbox', { name: 'Message' }).fill('Is everybody there?')
      await page.getByRole('textbox', { name: 'Note' }).fill('#4711')
      await page.getByRole('textbox', { name: 'to confirm' }).fill('send')
      await page.getByRole('button', { name: 'Send', exact: true }).click()
      await page.locator('.steps').waitFor()
    }
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme })
      for (const [form, size] of Object.entries(SIZES)) {
        await page.setViewportSize(size)
        const picture = `${name}-${form}-${colorScheme}`
        await page.screenshot({ path: path.join(folder, `${picture}.png`), fullPage: name !== 'order' })
        // As much as a reader of the documents looks at.
        if (DEPLOYED[picture]) await page.screenshot({ path: path.join(folder, `${DEPLOYED[picture]}.png`), fullPage: true, clip: { x: 0, y: 0, width: size.width, height: Math.min(1480, await page.evaluate(() => document.documentElement.scrollHeight)) } })
      }
    }
    if (name === 'order') await page.getByRole('button', { name: 'Close this' }).click()
    await page.setViewportSize(SIZES.wide)
    await page.emulateMedia({ colorScheme: 'light' })
  }
  stop()
  for (const name of readdirSync(folder).filter((name) => name.endsWith('.png'))) writeFileSync(path.join(folder, name), withPalette(readFileSync(path.join(folder, name))))
  console.log(`pictures are in ${folder}`)
} catch (error) {
  console.log(cluster.logs())
  throw error
} finally {
  await browser.close()
  await cluster.stop()
}
process.exit(0)
