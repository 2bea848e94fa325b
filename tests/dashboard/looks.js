// What pages show and offer, how they look, and that all is worked by keyboard.
import { holds, same, until } from '../clients/node/lib/wait.js'
import { NARROW, PAGES, WIDE, axe, base, drawn, login, session, shows, text } from './browser.js'

export const checks = {
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
}
