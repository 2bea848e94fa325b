// Gateways that are busy, stopped or killed, tabs that nobody sees, many events.
import { readFileSync } from 'node:fs'
import { holds, same, until } from '../clients/node/lib/wait.js'
import { PAGES, axe, base, connections, drawn, login, minutes, session, shows, text } from './browser.js'
import { SECRET } from './cluster.js'

export const checks = {
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
    // The page has been seen without its button, for a reason that is not known yet: what it said then is printed.
    const button = page.getByRole('button', { name: 'Watch' })
    await button.waitFor({ timeout: 8000 }).catch(async () => {
      console.log(`      without its button the page said: ${(await text(page)).slice(0, 1500)}`)
      await page.reload()
    })
    await button.click()
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
    const fill = async (text, note) => {
      await page.getByRole('button', { name: 'Send a test message…' }).click()
      await page.getByRole('textbox', { name: 'Message' }).fill(text)
      await page.getByRole('textbox', { name: 'Note' }).fill(note)
      await page.getByRole('textbox', { name: 'to confirm' }).fill('send')
    }
    const send = () => page.getByRole('button', { name: 'Send', exact: true }).click()
    await fill('traced', '#4711 "grüße"')
    await send()
    await shows(page, 'Its way through the cluster')
    for (const step of [/gateway-\d took it from (secret|local), 6 B/, /is the home|home is gateway-\d: asked/, /placed at [\d.]+\/\d+/, /gateway-3 shards/, /receipt: 3 clients, ordered/]) await shows(page, step)
    same('what is in trouble', await page.locator('.steps .trouble').allInnerTexts(), [])
    same('axe', await axe(page), [])
    const way = await page.locator('.steps').innerText()
    const home = (/home is (gateway-\d)/.exec(way) ?? /(gateway-\d) is the home/.exec(way))[1]
    await page.getByRole('button', { name: 'Close this' }).click()
    await drawn(page, '#/events')
    await shows(page, '#4711 "grüße"')
    await drawn(page, `#/group?app=shop&group=orders.eu`)
    // Not the one that is asked nor the home, which would be waited for first, and not that of the client `one`.
    const asked = /asked 127.0.0.1:(\d+)/.exec(await text(page))[1]
    const silent = cluster.gateways.slice(1).find((gateway) => String(gateway.internal) !== asked && gateway.name !== home)?.name
    if (!silent) console.log('      no gateway but the home and the one that is asked could be stopped: that part is not run')
    // A gateway that is stopped for long is removed, and then nobody waits for it: on a slow machine it may take a second try.
    let [marked, sent] = [[], '']
    for (let n = 1; silent && n <= 3 && !marked.length; n += 1) {
      sent = `not everywhere ${n}`
      await fill(sent, '')
      cluster.kill(silent, 'SIGSTOP')
      await send()
      await page.locator('.steps').waitFor()
      cluster.kill(silent, 'SIGCONT')
      marked = (await page.locator('.steps .trouble').allInnerTexts()).filter((step) => new RegExp(`${silent} (NO ANSWER|UNREACHABLE|OUTSIDE|NOT SYNCED)|missing ${silent}`).test(step))
      await until('the cluster is whole', async () => {
        const status = await cluster.call('Status', {})
        return status.gateways.length === 3 && status.view.members.filter((member) => member.state === 'MEMBER_STATE_READY').length === 4
      }, 30_000)
      await page.getByRole('button', { name: /Cancel|Close this/ }).click()
    }
    holds('who did not answer is marked', !silent || marked.length > 0)
    if (silent) await until('it was got once', () => one.received.filter((own) => own === sent).length === 1)
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
    // The check before may have stopped a gateway, which the next picture shows.
    await until('all answer, as it is read out', async () => (await said()).join() === 'All gateways answer.', 30_000)
    cluster.kill('gateway-3', 'SIGSTOP')
    await shows(page, /gateway-3 does not answer|gateway-3\s+no answer/, 15_000)
    // With the picture, and once: an age that is read out every second would delay everything after it.
    await until('who does not answer is read out', async () => (await said()).join() === 'No answer from gateway-3.', 5000)
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
