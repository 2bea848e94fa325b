// What all checks use: sessions of the browser, whose pages are watched, and what pages show.
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createRequire } from 'node:module'
import { until } from '../clients/node/lib/wait.js'
import { SECRET } from './cluster.js'

const require = createRequire(new URL('../clients/node/package.json', import.meta.url))
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
export const WIDE = { width: 1280, height: 860 }
export const NARROW = { width: 360, height: 740 }

/** How long the page of events is looked at, instead of seconds. */
export const minutes = process.argv.includes('--minutes') ? Number(process.argv[process.argv.indexOf('--minutes') + 1]) : 0

/** What pages did that they must not do, from the whole run. */
export const faults = []

/** A browser's own session, whose pages are watched. */
export async function session(browser, options = {}) {
  const context = await browser.newContext({ viewport: WIDE, locale: 'en-GB', reducedMotion: 'reduce', bypassCSP: false, ...options })
  await context.addInitScript(() => {
    window.breaches = []
    document.addEventListener('securitypolicyviolation', (event) => window.breaches.push(`${event.violatedDirective} ${event.blockedURI}`))
  })
  context.on('page', (page) => {
    page.on('pageerror', (error) => faults.push(`an error of a script: ${error.stack}`))
    page.on('console', (message) => {
      if (/Content Security Policy|Trusted/.test(message.text())) faults.push(message.text())
    })
    page.on('request', (request) => {
      const [own, asked] = [page.url(), request.url()]
      if (own.startsWith('http') && asked.startsWith('http') && new URL(own).host !== new URL(asked).host) faults.push(`${own} asks for ${asked}`)
    })
  })
  return context
}

export const text = (page) => page.locator('body').innerText()
export const shows = (page, what, limit) => until(`the page shows ${what}`, async () => {
  const all = await text(page)
  return what instanceof RegExp ? what.test(all) : all.includes(what)
}, limit).catch(async (error) => { throw new Error(`${error.message.split('\n')[0]}\n    it shows: ${(await text(page)).slice(0, 1500)}`) })

export const base = (port) => `http://127.0.0.1:${port}`

/** Logs in with a token, or with the secret. */
export async function login(context, port, token = SECRET) {
  const page = await context.newPage()
  await page.goto(base(port))
  await page.getByLabel('Token').fill(token)
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByRole('navigation').waitFor()
  return page
}

/** A raw request: browsers let nobody choose these headers. */
export function raw(port, { method = 'GET', target = '/', headers = {}, body = '', tls = false }) {
  return new Promise((resolve, reject) => {
    const of = { host: '127.0.0.1', port, method, path: target, headers, agent: false, rejectUnauthorized: false }
    const request = (tls ? https : http).request(of, (answer) => {
      let all = ''
      answer.on('data', (chunk) => { all += chunk })
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, body: all }))
    })
    request.on('upgrade', (answer, socket) => { socket.destroy(); resolve({ status: 101, headers: answer.headers }) })
    request.on('error', reject)
    request.end(body)
  })
}

export const PAGES = (one) => ['#/overview', '#/clients?app=shop', `#/client?app=shop&id=${one.id}`, '#/groups?app=shop', '#/group?app=shop&group=orders.eu', '#/apps', '#/app?app=shop', '#/workers', '#/events', '#/doctor']

/** Open connections to a port of this machine. */
export function connections(port) {
  const hex = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return readFileSync('/proc/net/tcp', 'utf8').split('\n').filter((line) => line.trim().split(/\s+/)[1] === hex && line.trim().split(/\s+/)[3] === '01').length
}

/** Until the page has its picture. */
export async function drawn(page, hash) {
  await page.goto(`${new URL(page.url()).origin}/${hash}`)
  await until(`${hash} is drawn`, async () => {
    const all = await text(page)
    return all.includes('as of') && !/Asking|Examining/.test(all)
  })
}

/** What axe finds, in words. Playwright evaluates outside of the page's policy. */
export async function axe(page) {
  const session = await page.context().newCDPSession(page)
  await session.send('Runtime.evaluate', { expression: `${AXE}; undefined` })
  await session.detach()
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
  return found.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.failureSummary.split('\n')[1]}`).join(' | ')}`)
}
