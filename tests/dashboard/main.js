// The checks, one after the other in one browser; see `run` beside this file.
import { readFileSync } from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { createRequire } from 'node:module'
import { holds, same, until } from '../clients/node/lib/wait.js'
import { Cluster, SECRET } from './cluster.js'

const require = createRequire(new URL('../clients/node/package.json', import.meta.url))
const { chromium } = require('playwright-core')
const AXE = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
const WIDE = { width: 1280, height: 860 }
const NARROW = { width: 360, height: 740 }

const only = process.argv.includes('--only') ? process.argv[process.argv.indexOf('--only') + 1] : ''

/** How long the page of events is looked at, instead of seconds. */
const minutes = process.argv.includes('--minutes') ? Number(process.argv[process.argv.indexOf('--minutes') + 1]) : 0

/** What pages did that they must not do, from the whole run. */
const faults = []

/** A browser's own session, whose pages are watched. */
async function session(browser, options = {}) {
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

const text = (page) => page.locator('body').innerText()
const shows = (page, what, limit) => until(`the page shows ${what}`, async () => {
  const all = await text(page)
  return what instanceof RegExp ? what.test(all) : all.includes(what)
}, limit).catch(async (error) => { throw new Error(`${error.message.split('\n')[0]}\n    it shows: ${(await text(page)).slice(0, 1500)}`) })

const base = (port) => `http://127.0.0.1:${port}`

/** Logs in with a token, or with the secret. */
async function login(context, port, token = SECRET) {
  const page = await context.newPage()
  await page.goto(base(port))
  await page.getByLabel('Token').fill(token)
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByRole('navigation').waitFor()
  return page
}

/** A raw request: browsers let nobody choose these headers. */
function raw(port, { method = 'GET', target = '/', headers = {}, body = '', tls = false }) {
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

const PAGES = (one) => ['#/overview', '#/clients?app=shop', `#/client?app=shop&id=${one.id}`, '#/groups?app=shop', '#/group?app=shop&group=orders.eu', '#/apps', '#/app?app=shop', '#/workers', '#/events', '#/doctor']

/** Open connections to a port of this machine. */
function connections(port) {
  const hex = `0100007F:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return readFileSync('/proc/net/tcp', 'utf8').split('\n').filter((line) => line.trim().split(/\s+/)[1] === hex && line.trim().split(/\s+/)[3] === '01').length
}

/** Until the page has its picture. */
async function drawn(page, hash) {
  await page.goto(`${new URL(page.url()).origin}/${hash}`)
  await until(`${hash} is drawn`, async () => {
    const all = await text(page)
    return all.includes('as of') && !/Asking|Examining/.test(all)
  })
}

const checks = {
  'a token is asked for, and a wrong one is refused': async ({ cluster, browser }) => {
    const context = await session(browser)
    const page = await context.newPage()
    await page.goto(base(cluster.gateways[0].dashboard))
    holds('nothing of the cluster is said before', !/gateway-/.test(await text(page)), await text(page))
    await page.getByLabel('Token').fill('wrong-0123456789-0123456789-0123456789')
    await page.getByRole('button', { name: 'Log in' }).click()
    await shows(page, 'does not accept this token')
    await page.getByLabel('Token').fill(SECRET)
    await page.getByRole('button', { name: 'Log in' }).click()
    await shows(page, 'All is well')
    for (const name of ['gateway-1', 'gateway-2', 'gateway-3', 'chat-1']) await shows(page, name)
    const [cookie] = await context.cookies()
    same('the cookie is out of scripts\' reach', [cookie.httpOnly, cookie.sameSite], [true, 'Strict'])
    await page.getByRole('button', { name: 'Log out' }).click()
    await page.getByLabel('Token').waitFor()
    const port = cluster.gateways[0].dashboard
    const after = await raw(port, { target: '/live', headers: { host: `127.0.0.1:${port}`, origin: base(port), cookie: `${cookie.name}=${cookie.value}` } })
    same('the session is over', after.status, 401)
    await context.close()
  },

  'a reader is offered no orders, and one that is given nevertheless is refused in words': async ({ cluster, browser, one }) => {
    const context = await session(browser)
    const port = cluster.gateways[0].dashboard
    const page = await login(context, port, cluster.tokens.reader)
    await shows(page, 'rita (reader)')
    for (const [hash, fact] of [[`#/client?app=shop&id=${one.id}`, 'connected for'], ['#/group?app=shop&group=orders.eu', 'next home'], ['#/app?app=shop', 'takes raw clients']]) {
      await drawn(page, hash)
      await shows(page, fact)
      same(`orders on ${hash}`, await page.getByRole('button', { name: /Send|Disconnect/ }).count(), 0)
    }
    await shows(page, 'what messages say is not shown to you')
    const refused = await page.evaluate((id) => fetch('/order', {
      method: 'POST', headers: { 'content-type': 'application/json', 'x-broadgate-dashboard': '1' },
      body: JSON.stringify({ id: 'x', confirm: 'send', order: { send: { app: 'shop', to: { client: id }, text: 'by a reader' } } }),
    }).then(async (answer) => [answer.status, (await answer.json()).error]), one.id)
    holds('the order is refused in words', refused[0] === 403 && /needs the role operator/.test(refused[1]), refused)
    same('nothing has come', one.received.filter((text) => text.includes('by a reader')), [])
    await drawn(page, '#/overview')
    await shows(page, 'token:rita')
    await context.close()
  },

  'a token of one app shows that app, and nothing of others': async ({ cluster, browser, one }) => {
    const context = await session(browser)
    const port = cluster.gateways[0].dashboard
    const page = await login(context, port, cluster.tokens.shop)
    await shows(page, 'Overview of app shop')
    await until('the loud group is listed', async () => page.getByRole('link', { name: 'orders.eu' }).count())
    const seen = []
    const all = [...PAGES(one).filter((hash) => !/#.(client|group)\?/.test(hash)), '#/events?only=vault', '#/app?app=vault', '#/clients?app=vault', '#/groups?app=vault', '#/group?app=vault&group=secret-group', '#/overview?app=vault', `#/client?app=vault&id=${cluster.vault.id}`]
    for (const hash of all) {
      await page.goto(`${base(port)}/${hash}`)
      await until(`${hash} is answered`, async () => {
        // The page repeats the name that its address has.
        const shown = (await text(page)).replace('Group secret-group', '')
        seen.push(shown)
        return shown.includes('Log out') && !/Asking|Examining/.test(shown)
      })
      if (hash.includes('vault')) await shows(page, /is not for the app/)
    }
    const whole = seen.join('\n')
    for (const word of ['secret-group', 'vera', 'All is well', 'chat-1']) holds(`${word} is not shown`, !whole.includes(word), whole.slice(Math.max(0, whole.indexOf(word) - 300), whole.indexOf(word) + 100))
    // In its own app it may give orders.
    await drawn(page, `#/client?app=shop&id=${one.id}`)
    await until('orders are offered in its app', async () => await page.getByRole('button', { name: 'Disconnect…' }).count() === 1)
    await context.close()
  },

  'the sixth wrong token of a minute has to wait': async ({ cluster }) => {
    const port = cluster.gateways[2].dashboard
    const headers = { host: `127.0.0.1:${port}`, origin: base(port), 'content-type': 'application/json', 'x-broadgate-dashboard': '1' }
    const seen = []
    for (let n = 0; n < 7; n += 1) seen.push((await raw(port, { method: 'POST', target: '/login', headers, body: JSON.stringify({ token: `wrong-${n}-0123456789-0123456789` }) })).status)
    same('what is answered', seen, [401, 401, 401, 401, 401, 429, 429])
    const right = await raw(port, { method: 'POST', target: '/login', headers, body: JSON.stringify({ token: SECRET }) })
    holds('the right one waits as well', right.status === 429 && Number(right.headers['retry-after']) > 0, right)
  },

  'other origins and other hosts get nothing': async ({ cluster, browser, page, context }) => {
    const port = cluster.own
    const [cookie] = (await context.cookies()).filter((one) => one.name.endsWith(String(port)))
    const own = { host: `127.0.0.1:${port}`, origin: base(port), cookie: `${cookie.name}=${cookie.value}` }
    const live = { target: '/live', headers: { ...own, connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==' } }
    const order = { method: 'POST', target: '/order', headers: { ...own, 'content-type': 'application/json', 'x-broadgate-dashboard': '1' }, body: '{}' }
    same('the own page is served', [(await raw(port, live)).status, (await raw(port, order)).status], [101, 400])
    for (const request of [live, order]) {
      for (const more of [{ origin: 'http://127.0.0.1:1' }, { origin: 'http://evil.example' }, { origin: 'null' }, { origin: '' }, { 'sec-fetch-site': 'cross-site' }]) {
        same(`${request.target} with ${JSON.stringify(more)}`, (await raw(port, { ...request, headers: { ...request.headers, ...more } })).status, 403)
      }
      const { cookie: _, ...stranger } = request.headers
      same(`${request.target} without a session`, (await raw(port, { ...request, headers: stranger })).status, 401)
    }
    const { 'x-broadgate-dashboard': _, ...bare } = order.headers
    same('an order without the own header', (await raw(port, { ...order, headers: bare })).status, 403)
    for (const target of ['/', '/app.js', '/me', '/live']) {
      same(`${target} of a foreign host`, (await raw(port, { target, headers: { ...own, host: 'evil.example' } })).status, 403)
    }
    // And a real page of another origin, in the browser that is logged in.
    const other = http.createServer((_, answer) => answer.writeHead(200, { 'content-type': 'text/html' }).end('<title>other</title>'))
    await new Promise((resolve) => other.listen(0, '127.0.0.1', resolve))
    const stranger = await (await browser.newContext({ storageState: await context.storageState() })).newPage()
    await stranger.goto(base(other.address().port))
    const came = await stranger.evaluate(async (to) => ({
      socket: await new Promise((resolve) => { const socket = new WebSocket(`${to.replace('http', 'ws')}/live`); socket.onopen = () => resolve('open'); socket.onerror = () => resolve('refused') }),
      order: await fetch(`${to}/order`, { method: 'POST', credentials: 'include', headers: { 'content-type': 'application/json', 'x-broadgate-dashboard': '1' }, body: '{}' }).then(() => 'answered', () => 'refused'),
      simple: await fetch(`${to}/order`, { method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}' }).then((answer) => answer.status, () => 'refused'),
    }), base(port))
    same('what the other page gets', [came.socket, came.order], ['refused', 'refused'])
    await stranger.context().close()
    other.close()
    holds('the own page goes on', (await text(page)).includes('as of'))
  },

  'every page is drawn, passes axe in both themes, and fits 360 px': async ({ page, one }) => {
    for (const hash of PAGES(one)) {
      await page.setViewportSize(WIDE)
      await drawn(page, hash)
      for (const scheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme: scheme })
        for (const size of scheme === 'light' ? [NARROW] : [WIDE]) {
          await page.setViewportSize(size)
          if (size === NARROW) {
            const wide = await page.evaluate(() => document.scrollingElement.scrollWidth)
            same(`${hash} is no wider than the screen`, wide, NARROW.width)
          }
          // Into a world of its own: the page's policy allows no script that it has not served.
          const found = await axe(page)
          same(`${hash} ${scheme} ${size.width}`, found, [])
        }
      }
    }
    await page.emulateMedia({ colorScheme: 'light' })
    await page.setViewportSize(WIDE)
  },

  'all is reached by keyboard': async ({ page }) => {
    await drawn(page, '#/overview')
    await page.locator('.skip').focus()
    const stops = []
    for (let n = 0; n < 14; n += 1) {
      stops.push(await page.evaluate(() => document.activeElement.textContent.trim()))
      await page.keyboard.press('Tab')
    }
    for (const stop of ['Pause', 'Log out', 'Overview', 'Doctor']) holds(`Tab comes to ${stop}`, stops.some((one) => one.startsWith(stop)), stops)
    await page.getByRole('link', { name: 'Workers' }).first().focus()
    await page.keyboard.press('Enter')
    await shows(page, 'Services that listeners need')
  },

  'clients are found, and one is disconnected after a confirmation': async ({ cluster, page }) => {
    const socket = await cluster.client(cluster.gateways[1], '42', 'orders.eu')
    await drawn(page, '#/clients?app=shop')
    await page.locator('select[name=by]').selectOption('uid')
    await page.locator('input[name=value]').fill('42')
    await page.getByRole('button', { name: 'Show' }).click()
    await page.getByRole('link', { name: socket.id }).click()
    await shows(page, 'gateway-2, listener web')
    await page.getByRole('button', { name: 'Send…' }).click()
    await page.getByRole('textbox', { name: 'Message' }).fill('hello from the dashboard')
    const confirm = page.getByRole('textbox', { name: 'to confirm' })
    await confirm.fill('yes')
    await page.getByRole('button', { name: 'Send', exact: true }).click()
    await shows(page, 'nothing was done')
    same('nothing is sent without the word', socket.received.filter((one) => one.includes('dashboard')), [])
    await confirm.fill('send')
    await page.getByRole('button', { name: 'Send', exact: true }).click()
    await shows(page, 'Sent to 1 client')
    await until('the client has it', () => socket.received.includes('hello from the dashboard'))
    await page.getByRole('button', { name: 'Close this' }).click()
    await page.getByRole('button', { name: 'Disconnect…' }).click()
    await page.getByRole('textbox', { name: 'Reason' }).fill('by the suite')
    await confirm.fill('close')
    await page.getByRole('button', { name: 'Disconnect', exact: true }).click()
    await shows(page, 'Closed 1 client')
    await until('it is closed', () => socket.code === 4000)
    await page.getByRole('button', { name: 'Close this' }).click()
    await shows(page, 'It is not connected')
    await shows(page, 'by the suite')
  },

  'gateways that are busy measuring are not silent: the page says so, and goes on': async ({ cluster, browser }) => {
    const context = await session(browser)
    // As many different questions as the shards measure at once, for as long as this lasts.
    let asks = true
    const scopes = ['TOP_BY_GROUPS', 'TOP_BY_CLIENTS'].flatMap((by) => ['', 'default', 'shop', 'vault'].map((app) => ({ by, app })))
    const measured = new Set()
    const asking = Promise.all(scopes.map(async (scope) => {
      while (asks) {
        await cluster.call('Top', scope).then(() => measured.add(scope), () => null)
        await new Promise((resolve) => setTimeout(resolve, 500))
      }
    }))
    try {
      await until('all of them are measured', () => measured.size === scopes.length, 30_000)
      const page = await login(context, cluster.gateways[0].dashboard, cluster.tokens.spare)
      await shows(page, 'Overview of app spare')
      for (const list of ['Loud groups', 'Busy clients']) await shows(page, new RegExp(`${list}\\s+the gateways are busy, asked again`))
      await shows(page, 'Not measured yet: 8 different questions are measured already')
      await until('the page is live', async () => (await page.locator('.freshness').innerText()).includes('live'))
      holds('nothing is said to be silent', !/does not answer|no gateway answers/i.test(await text(page)), await text(page))
      // Room is made, and it is measured.
      asks = false
      for (const sentence of ['Nothing is sent to groups.', 'No client sends or receives.']) await shows(page, sentence, 40_000)
    } finally {
      asks = false
      await asking
      await context.close()
    }
  },

  'with certificates it speaks TLS alone, and its cookie stays there': async ({ cluster, browser }) => {
    const context = await session(browser, { ignoreHTTPSErrors: true })
    const port = cluster.gateways[1].dashboard
    const page = await context.newPage()
    await page.goto(`https://localhost:${port}/`)
    await page.getByLabel('Token').fill(SECRET)
    await page.getByRole('button', { name: 'Log in' }).click()
    await shows(page, 'gateway-3')
    const [cookie] = await context.cookies()
    same('the cookie', [cookie.secure, cookie.httpOnly, cookie.sameSite, cookie.name], [true, true, 'Strict', `__Host-broadgate-${port}`])
    same('without TLS', [400, true], await raw(port, { headers: { host: `localhost:${port}` } }).then(({ status, body }) => [status, /https:\/\//.test(body)]))
    const asked = (more, target = '/order') => raw(port, { method: 'POST', target, tls: true, body: '{}', headers: { host: `localhost:${port}`, origin: `https://localhost:${port}`, cookie: `${cookie.name}=${cookie.value}`, 'content-type': 'application/json', 'x-broadgate-dashboard': '1', ...more } }).then(({ status }) => status)
    same('the own page', await asked({}), 400)
    same('pages of others', [await asked({ origin: `http://localhost:${port}` }), await asked({ origin: 'https://evil.example' }), await asked({ host: `evil.example:${port}`, origin: `https://evil.example:${port}` })], [403, 403, 403])
    await context.close()
    const own = await session(browser, { ignoreHTTPSErrors: true })
    const link = await cluster.dashboard('dashboard-tls', cluster.ownTls, cluster.gateways[0].internal, cluster.tlsFlags)
    holds('the link is of HTTPS', link.startsWith(`https://127.0.0.1:${cluster.ownTls}/#link=`), link)
    const second = await own.newPage()
    await second.goto(link)
    await shows(second, 'gateway-3')
    same('its cookie', (await own.cookies()).map((one) => one.secure), [true])
    cluster.kill('dashboard-tls')
    await own.close()
  },

  'whose token is removed is logged out, and is told why': async ({ cluster, browser }) => {
    const context = await session(browser)
    const port = cluster.gateways[0].dashboard
    const page = await login(context, port, cluster.tokens.brief)
    const second = await context.newPage()
    await second.goto(`${base(port)}/#/events`)
    await shows(second, 'brief (reader)')
    cluster.forget('brief')
    for (const one of [page, second]) {
      await shows(one, /You were logged out/, 25_000)
      holds('nothing of the cluster is left', !/gateway-\d/.test(await text(one)), await text(one))
    }
    await page.getByLabel('Token').fill(cluster.tokens.brief)
    await page.getByRole('button', { name: 'Log in' }).click()
    await shows(page, 'does not accept this token')
    await context.close()
  },

  'long names, right-to-left ones and many groups fit, and are what they are': async ({ cluster, page }) => {
    const names = [`a.${'very-long-name.'.repeat(13)}end`, 'חדשות.\u202eevil', 'w'.repeat(200), '<b>bold</b>']
    const many = Array.from({ length: 101 }, (_, n) => `bulk.${String(n).padStart(3, '0')}`)
    const client = await cluster.client(cluster.gateways[2], `שלום ${'u'.repeat(150)}`, names[0])
    for (const groups of [names.slice(1), many.slice(0, 60), many.slice(60)]) await cluster.call('Join', { app: 'shop', clients: [client.id], groups })
    await drawn(page, '#/groups?app=shop&prefix=bulk.')
    await shows(page, '100 rows')
    await page.getByRole('link', { name: 'Next page' }).click()
    await shows(page, 'bulk.100')
    await page.setViewportSize(NARROW)
    const pages = ['#/groups?app=shop', '#/clients?app=shop', `#/client?app=shop&id=${client.id}`, '#/overview', ...names.map((group) => `#/group?${new URLSearchParams({ app: 'shop', group })}`)]
    for (const hash of pages) {
      await drawn(page, hash)
      same(`${hash} is no wider than the screen`, await page.evaluate(() => document.scrollingElement.scrollWidth), NARROW.width)
      holds('no text of a stranger is markup', await page.locator('main b', { hasText: /^bold$/ }).count() === 0)
    }
    await drawn(page, `#/groups?${new URLSearchParams({ app: 'shop', prefix: 'חדשות' })}`)
    await shows(page, 'חדשות.\\u{202e}evil')
    await page.setViewportSize(WIDE)
    client.terminate()
  },

  'an empty cluster has a sentence on each page': async ({ cluster, browser }) => {
    const port = await cluster.startEmpty()
    const context = await session(browser)
    const page = await login(context, port)
    const none = 'The gateways have no app'
    const pages = {
      '#/overview': ['No worker is attached.', 'No connection has ended.', 'Nothing is sent to groups.', 'No client sends or receives.'], '#/clients': [none], '#/client': [none], '#/groups': [none], '#/group': [none], '#/app': [none], '#/apps': ['No app is configured'],
      '#/workers': ['No worker is attached.'], '#/events': ['None, as far as remembered.', 'Nothing was refused, as far as remembered.'], '#/doctor': ['no worker'],
    }
    for (const [hash, sentences] of Object.entries(pages)) {
      await page.goto(`${base(port)}/${hash}`)
      for (const sentence of sentences) await shows(page, sentence)
    }
    for (const name of ['empty', 'register-2']) cluster.kill(name)
    await context.close()
  },

  'what is hidden for long is closed, and opened again when somebody looks': async ({ cluster, browser }) => {
    const port = cluster.gateways[1].dashboard
    const before = connections(port)
    const context = await session(browser, { ignoreHTTPSErrors: true })
    const opened = []
    const page = await context.newPage()
    // The close that the server sends after minutes comes at once.
    await page.routeWebSocket(/\/live$/, (socket) => {
      socket.connectToServer()
      opened.push(socket)
    })
    await page.goto(`https://localhost:${port}/`)
    await page.getByLabel('Token').fill(SECRET)
    await page.getByRole('button', { name: 'Log in' }).click()
    await shows(page, 'gateway-3')
    const hide = (hidden) => page.evaluate((to) => {
      Object.defineProperty(document, 'hidden', { configurable: true, get: () => to })
      document.dispatchEvent(new Event('visibilitychange'))
    }, hidden)
    await hide(true)
    await opened[0].close({ code: 4402, reason: 'nobody has looked for some minutes' })
    await until('the page knows', async () => (await page.locator('.freshness').innerText()).includes('paused'))
    await new Promise((resolve) => setTimeout(resolve, 800))
    same('it opens none while nobody looks', opened.length, 1)
    await hide(false)
    await until('it is live again', async () => opened.length === 2 && (await page.locator('.freshness').innerText()).includes('live'))
    await context.close()
    await until('its connections are gone', () => connections(port) <= before, 15_000)
  },

  'a page under a high rate of events does not grow': async ({ cluster, context, one }) => {
    const page = await context.newPage()
    await page.goto(base(cluster.own))
    await drawn(page, '#/app?app=shop')
    await page.getByRole('button', { name: 'Watch' }).click()
    let sends = true
    const sending = Promise.all([0, 1, 2, 0].map(async (at) => {
      while (sends) await cluster.call('Send', { to: { app: 'shop', groups: ['orders.eu'] }, text: 'x'.repeat(100), no_receipt: true }, cluster.gateways[at], 'the-suite').catch(() => null)
    }))
    const cdp = await context.newCDPSession(page)
    await cdp.send('Performance.enable')
    const measure = async () => {
      for (let n = 0; n < 2; n += 1) await cdp.send('HeapProfiler.collectGarbage')
      const { metrics } = await cdp.send('Performance.getMetrics')
      const of = (name) => metrics.find((metric) => metric.name === name).value
      const own = readFileSync(`/proc/${cluster.running.get('dashboard').pid}/status`, 'utf8')
      return { process: Number(/VmRSS:\s+(\d+)/.exec(own)[1]) * 1024, heap: of('JSHeapUsedSize'), nodes: of('Nodes'), listeners: of('JSEventListeners'), cpu: of('TaskDuration'), at: of('Timestamp') }
    }
    // What is drawn and forgotten within a second is garbage of that second: some of it is there at any time.
    try {
      await until('the list is full', async () => await page.locator('.line').count() === 500, 40_000)
      const before = await measure()
      await new Promise((resolve) => setTimeout(resolve, minutes ? minutes * 60_000 : 3000))
      const after = await measure()
      const said = `heap ${(before.heap / 1e6).toFixed(1)} to ${(after.heap / 1e6).toFixed(1)} MB, nodes ${before.nodes} to ${after.nodes}, listeners ${before.listeners} to ${after.listeners}, script and layout ${((after.cpu - before.cpu) / (after.at - before.at) * 100).toFixed(0)} % of a core for ${(after.at - before.at).toFixed(0)} s; the dashboard's process ${(before.process / 1e6).toFixed(0)} to ${(after.process / 1e6).toFixed(0)} MB`
      console.log(`      ${said}`)
      holds('it does not grow', after.heap < before.heap * 1.5 + 3e6 && after.nodes < before.nodes * 2 + 30_000 && after.listeners < before.listeners * 1.5 + 50 && after.process < before.process + 20e6, said)
    } finally {
      sends = false
      await sending
      await page.close()
    }
    holds('the client is well', one.readyState === 1)
  },

  'all of every page is reached and worked by keyboard, and nothing holds it': async ({ page, one }) => {
    for (const hash of PAGES(one)) {
      await drawn(page, hash)
      const wanted = await page.evaluate(() => {
        const all = [...document.querySelectorAll('a[href], button, input, select, textarea, [tabindex="0"]')].filter((one) => !one.disabled && one.checkVisibility())
        all.forEach((one) => { one.reached = false })
        document.activeElement.blur()
        getSelection().removeAllRanges()
        window.scrollTo(0, 0)
        return all.length
      })
      await page.evaluate(() => {
        window.unseen = []
        window.left = false
        document.querySelector('.skip').focus()
        window.walked ??= addEventListener('focusin', ({ target: own }) => {
          own.reached = true
          const [style, box, head] = [getComputedStyle(own), own.getBoundingClientRect(), document.querySelector('header')]
          const top = getComputedStyle(head).position === 'sticky' && !head.contains(own) ? head.getBoundingClientRect().bottom : 0
          if (style.outlineStyle === 'none' || parseFloat(style.outlineWidth) < 1) window.unseen.push(`${own.outerHTML.slice(0, 120)} has no outline`)
          if (box.bottom < top || box.top > innerHeight) window.unseen.push(`${own.outerHTML.slice(0, 120)} is out of sight`)
        }) ?? true
      })
      for (let n = 0; n < wanted + 2; n += 1) await page.keyboard.press('Tab')
      same(`${hash}: focus that cannot be seen`, await page.evaluate(() => window.unseen), [])
      const missed = await page.evaluate(() => [...document.querySelectorAll('a[href], button, input, select, textarea, [tabindex="0"]')].filter((one) => one.reached === false && !one.matches('.skip') && !one.disabled && one.checkVisibility()).map((one) => one.outerHTML.slice(0, 120)))
      same(`${hash}: what Tab does not reach`, missed, [])
    }
    // A dialog is left by Escape, and gives the focus back.
    await drawn(page, `#/client?app=shop&id=${one.id}`)
    const opener = page.getByRole('button', { name: 'Disconnect…' })
    await opener.focus()
    await page.keyboard.press('Enter')
    await page.getByRole('dialog').waitFor()
    await page.keyboard.press('Tab')
    holds('Tab stays in the dialog', await page.evaluate(() => document.activeElement.closest('dialog') !== null || document.activeElement === document.body))
    await page.keyboard.press('Escape')
    await until('the dialog is gone', async () => await page.getByRole('dialog').count() === 0)
    holds('the focus is where it was', await opener.evaluate((own) => own === document.activeElement))
  },

  'what is typed outlives the next picture, and an unknown page is none': async ({ page }) => {
    await drawn(page, '#/groups?app=shop')
    const prefix = page.locator('input[name=prefix]')
    await prefix.fill('ord')
    const at = await page.locator('#age').innerText()
    await until('the next picture has come', async () => await page.locator('#age').innerText() !== at)
    await until('and the one after it', async () => await page.locator('#age').innerText() === 'as of 0 s ago')
    await new Promise((resolve) => setTimeout(resolve, 2200))
    same('the field', await prefix.inputValue(), 'ord')
    for (const hash of ['#/constructor', '#/toString']) {
      await page.goto(`${new URL(page.url()).origin}/${hash}`)
      await shows(page, 'Last ends')
    }
    await drawn(page, '#/clients?app=shop&by=constructor')
  },

  'what a client does is seen within a second': async ({ cluster, page, one }) => {
    await drawn(page, `#/client?app=shop&id=${one.id}`)
    await page.getByRole('button', { name: 'Watch' }).click()
    await page.getByRole('log').waitFor()
    await shows(page, 'orders.eu')
    const lines = page.getByRole('log').locator('.line.placed')
    await until('messages of its group are lines', async () => await lines.count() > 3)
    const began = Date.now()
    await cluster.call('Send', { to: { app: 'shop', clients: [one.id] }, text: 'x'.repeat(777) }, cluster.gateways[2])
    await until('the message is a line', async () => (await page.getByRole('log').innerText()).includes('777 B'))
    holds('within a second, and some for a machine that is busy', Date.now() - began < 3000, Date.now() - began)
    holds('what it says is not shown', !(await page.getByRole('log').innerText()).includes('xxxxx'))
    const found = await axe(page)
    same('axe', found, [])
    await page.getByLabel('what messages say').check()
    // The tap is opened again for it: what comes before that is in none.
    await until('what a message says is shown', async () => {
      await cluster.call('Send', { to: { app: 'shop', clients: [one.id] }, text: 'to be seen' }, cluster.gateways[2])
      return (await page.getByRole('log').innerText()).includes('to be seen')
    })
    await page.setViewportSize(WIDE)
    await page.getByRole('button', { name: 'Stop' }).click()
    const stopped = await lines.count()
    await new Promise((resolve) => setTimeout(resolve, 300))
    same('nothing follows', await lines.count(), stopped)
  },

  'what is busy leads to its page': async ({ page }) => {
    await drawn(page, '#/overview')
    await shows(page, 'worker:the-suite')
    await page.getByRole('table', { name: 'Loud groups' }).getByRole('link', { name: 'orders.eu' }).click()
    await shows(page, 'Group orders.eu')
    await shows(page, /members\s+3: gateway-\d 1, gateway-\d 1, gateway-\d 1/)
    await shows(page, /history\s+\d+ of 100/)
    await page.goBack()
    await page.getByRole('table', { name: 'Busy clients' }).getByRole('link', { name: 'bob' }).click()
    await shows(page, 'Earlier ends of uid bob')
    // The app that was looked at last is that of the next page.
    await drawn(page, '#/groups?app=vault')
    await drawn(page, '#/overview')
    await page.getByRole('link', { name: 'Clients', exact: true }).first().click()
    await until('the app is that of the page before', async () => await page.locator('input[name=app]').inputValue() === 'vault')
    await drawn(page, '#/apps')
    await shows(page, /shop\s+3\s+3 of 1,000/)
  },

  'connected clients are found by their address': async ({ page }) => {
    const rows = page.getByRole('table').getByRole('row')
    for (const [address, found] of [['127.0.0.0/8', true], ['127.0.0.1', true], ['10.1.7.0/24', false]]) {
      await drawn(page, '#/clients?app=shop')
      await page.locator('select[name=by]').selectOption('address')
      await page.locator('input[name=value]').fill(address)
      await page.getByRole('button', { name: 'Show' }).click()
      await shows(page, found ? 'with the address' : 'No such client is connected.')
      await until('the answer has come', async () => found === (await rows.count() > 3))
    }
  },

  'a name that no group can have is refused in words, and the page goes on': async ({ page }) => {
    for (const length of [300, 100_000]) {
      await page.goto(`${new URL(page.url()).origin}/#/group?app=shop&group=${'x'.repeat(length)}`)
      await shows(page, /longer than any name|at most 200 are allowed/)
      await until('the page is live', async () => (await page.locator('.freshness').innerText()).includes('live'))
    }
    await drawn(page, '#/group?app=shop&group=orders.eu')
    await shows(page, 'members')
  },

  'a refused client is among the events': async ({ cluster, page }) => {
    await fetch(`http://127.0.0.1:${cluster.gateways[0].client}/app/no-such-key`, { headers: { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==' } }).catch(() => null)
    await fetch(`http://127.0.0.1:${cluster.gateways[0].internal}/v1/Status`, { method: 'POST', body: '{}' })
    await drawn(page, '#/events')
    await shows(page, /secret|Bearer/)
  },

  'eight tabs, each with its picture': async ({ cluster, context }) => {
    const began = Date.now()
    const pages = await Promise.all(Array.from({ length: 8 }, () => context.newPage()))
    await Promise.all(pages.map((page) => page.goto(base(cluster.own))))
    await Promise.all(pages.map((page) => shows(page, 'gateway-3')))
    holds('within some seconds', Date.now() - began < 15_000, Date.now() - began)
    for (const page of pages) await page.close()
  },

  'the picture is live, stops when paused, and says how old it is': async ({ page }) => {
    await drawn(page, '#/overview')
    const seconds = async () => Number(/as of (\d+) s ago/.exec(await text(page))?.[1] ?? 999)
    await until('it is renewed', async () => await seconds() <= 1)
    await page.getByRole('button', { name: 'Pause' }).click()
    await until('it gets old', async () => await seconds() >= 4)
    await shows(page, 'paused')
    await page.getByRole('button', { name: 'Go on' }).click()
    await until('it is new again', async () => await seconds() <= 1)
  },

  'a test send is traced, with who did not answer; its note lands in the audit': async ({ cluster, page, one }) => {
    await drawn(page, `#/group?app=shop&group=orders.eu`)
    const order = async (text, note) => {
      await page.getByRole('button', { name: 'Send a test message…' }).click()
      await page.getByRole('textbox', { name: 'Message' }).fill(text)
      await page.getByRole('textbox', { name: 'Note' }).fill(note)
      await page.getByRole('textbox', { name: 'to confirm' }).fill('send')
      await page.getByRole('button', { name: 'Send', exact: true }).click()
    }
    await order('traced', '#4711 "grüße"')
    await shows(page, 'Its way through the cluster')
    for (const step of [/gateway-\d took it from (secret|local), 6 B/, /is the home|home is gateway-\d: asked/, /placed at [\d.]+\/\d+/, /gateway-3 shards/, /receipt: 3 clients, ordered/]) await shows(page, step)
    same('what is in trouble', await page.locator('.steps .trouble').allInnerTexts(), [])
    same('axe', await axe(page), [])
    await page.getByRole('button', { name: 'Close this' }).click()
    await drawn(page, '#/events')
    await shows(page, '#4711 "grüße"')
    const silent = 'gateway-3'
    await drawn(page, `#/group?app=shop&group=orders.eu`)
    cluster.kill(silent, 'SIGSTOP')
    await order('not everywhere', '')
    await shows(page, /gateway-3 (NO ANSWER|UNREACHABLE|OUTSIDE)|gateway-3 NO ANSWER as the home/, 20_000)
    holds('it is marked', (await page.locator('.steps .trouble').allInnerTexts()).some((step) => step.includes('gateway-3')), await text(page))
    cluster.kill(silent, 'SIGCONT')
    // The same order again: everybody answers, and nobody has it twice.
    await until('the cluster is whole', async () => (await cluster.call('Status', {})).gateways.length === 3, 30_000)
    await page.getByRole('button', { name: 'Cancel' }).click()
    await until('it was got once', () => one.received.filter((text) => text === 'not everywhere').length === 1)
    for (const [hash, button] of [[`#/client?app=shop&id=${one.id}`, 'Send…'], ['#/app?app=shop', 'Send an event…']]) {
      await drawn(page, hash)
      await page.getByRole('button', { name: button }).click()
      if (button !== 'Send…') await page.getByRole('textbox', { name: 'Name' }).fill('orders.eu')
      await page.getByRole('textbox', { name: 'Event' }).fill('')
      await page.getByRole('textbox', { name: 'Message' }).fill('traced here too')
      await page.getByRole('textbox', { name: 'Note' }).fill('x'.repeat(256))
      await page.getByRole('textbox', { name: 'to confirm' }).fill('send')
      await page.getByRole('button', { name: 'Send', exact: true }).click()
      await shows(page, 'took it from')
      await page.getByRole('button', { name: 'Close this' }).click()
    }
  },

  'a paused gateway is named, and then it is well again': async ({ cluster, page }) => {
    await drawn(page, '#/overview')
    await shows(page, /gateway-3\s+ready/)
    const said = () => page.getByRole('status').allInnerTexts()
    same('what is read out', await said(), ['All gateways answer.'])
    cluster.kill('gateway-3', 'SIGSTOP')
    await shows(page, /gateway-3 does not answer|gateway-3\s+no answer/, 15_000)
    // With the picture, and once: an age that is read out every second would delay everything after it.
    same('what is read out', await said(), ['No answer from gateway-3.'])
    cluster.kill('gateway-3', 'SIGCONT')
    await shows(page, /gateway-3\s+ready/, 30_000)
  },

  'the gateway that is asked is killed: another one is asked': async ({ cluster, page }) => {
    await drawn(page, '#/overview')
    cluster.kill('gateway-1')
    await cluster.ended('gateway-1')
    await shows(page, new RegExp(`asked 127.0.0.1:(${cluster.gateways[1].internal}|${cluster.gateways[2].internal})`), 20_000)
    await shows(page, 'gateway-2')
    cluster.startGateway(cluster.gateways[0])
    await shows(page, /gateway-1\s+ready/, 30_000)
  },

  'a stopped gateway, while each page is open: each says how old it is, and comes back': async ({ cluster, context, one }) => {
    const tabs = await Promise.all(PAGES(one).map(async (hash) => {
      const tab = await context.newPage()
      await tab.goto(base(cluster.own))
      await drawn(tab, hash)
      return { hash, tab }
    }))
    const asked = /asked 127.0.0.1:(\d+)/.exec(await text(tabs[0].tab))[1]
    const stopped = cluster.gateways.find((gateway) => String(gateway.internal) === asked)
    const age = async (tab) => Number(/as of (\d+) s ago/.exec(await text(tab))?.[1] ?? 999)
    cluster.kill(stopped.name, 'SIGSTOP')
    try {
      await Promise.all(tabs.map(({ hash, tab }) => until(`${hash} says how old it is`, async () => await age(tab) >= 3, 15_000)))
      await Promise.all(tabs.map(({ hash, tab }) => until(`${hash} goes on with another gateway`, async () => await age(tab) <= 3 && !new RegExp(`asked 127.0.0.1:${asked}`).test(await text(tab)), 40_000)))
      // It is worked with meanwhile.
      await Promise.all(tabs.map(({ hash, tab }) => until(`${hash} has its body`, async () => !/Asking|Examining/.test(await text(tab)), 40_000)))
    } finally {
      cluster.kill(stopped.name, 'SIGCONT')
    }
    // It may have been removed meanwhile, which is a trouble for minutes.
    await shows(tabs[0].tab, new RegExp(`${stopped.name}\\s+ready`), 40_000)
    for (const { tab } of tabs) await tab.close()
  },

  'a dashboard that is gone says so, and one that is back asks for a new link': async ({ cluster, page }) => {
    await drawn(page, '#/overview')
    cluster.kill('dashboard')
    await cluster.ended('dashboard')
    await shows(page, 'The dashboard does not answer: what is shown is')
    same('what is read out', await page.getByRole('status').allInnerTexts(), ['The dashboard does not answer.'])
    holds('the picture stays', /gateway-\d/.test(await text(page)))
    const link = await cluster.dashboard()
    await shows(page, 'Open the link')
    await page.goto(link)
    await shows(page, 'gateway-2')
    holds('the link is not in the address', !page.url().includes('link='), page.url())
    const again = await page.context().browser().newContext()
    const second = await again.newPage()
    await second.goto(link)
    await shows(second, 'this link was used')
    await again.close()
  },
}

/** What axe finds, in words. Playwright evaluates outside of the page's policy. */
async function axe(page) {
  const session = await page.context().newCDPSession(page)
  await session.send('Runtime.evaluate', { expression: `${AXE}; undefined` })
  await session.detach()
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
  return found.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.failureSummary.split('\n')[1]}`).join(' | ')}`)
}

const ASIDE = ['with certificates', 'whose token', 'an empty cluster', 'gateways that are busy', 'what is hidden']
const FAULTS = ['a test send', 'a paused gateway']

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
