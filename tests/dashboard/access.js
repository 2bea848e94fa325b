// Who gets in, by which way, and what is shown to whom.
import http from 'node:http'
import { holds, same, until } from '../clients/node/lib/wait.js'
import { PAGES, base, drawn, login, raw, session, shows, text } from './browser.js'
import { SECRET } from './cluster.js'

export const checks = {
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

  'whose token is removed is logged out, and the page says why': async ({ cluster, browser }) => {
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
}
