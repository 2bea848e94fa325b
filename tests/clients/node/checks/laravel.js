// A Laravel application broadcasts and authorises; Echo in Chromium hears.
import fs from 'node:fs'
import path from 'node:path'
import { FILES, browser, heard, open } from '../lib/browser.js'
import { freePorts, get, keyOf, secretOf } from '../lib/cluster.js'
import { run } from '../lib/processes.js'
import { Skipped } from '../lib/suite.js'
import { holds, same, until } from '../lib/wait.js'

const APPS = { pusher: 'shop', reverb: 'reverb' }
const CODE = path.join(import.meta.dirname, '../../laravel')

/** The application, with its broadcasts going to the gateway that is apart. */
async function start(t, connection) {
  if (!process.env.CLIENTS_PHP) throw new Skipped('PHP with Laravel is not available')
  const app = APPS[connection]
  const storage = path.join(t.suite.work, t.name(`laravel-${connection}`))
  for (const folder of ['framework/views', 'logs']) fs.mkdirSync(path.join(storage, folder), { recursive: true })
  const [port] = await freePorts(1)
  const log = path.join(storage, 'php.log')
  const out = fs.openSync(log, 'w')
  const child = run(process.env.CLIENTS_PHP, ['-d', 'display_errors=stderr', '-S', `127.0.0.1:${port}`, 'index.php'], {
    cwd: CODE,
    stdio: ['ignore', out, out],
    env: {
      ...process.env,
      APP_PACKAGES_CACHE: path.join(storage, 'packages.php'), APP_SERVICES_CACHE: path.join(storage, 'services.php'),
      BROADCAST_CONNECTION: connection, CLIENTS_STORAGE: storage, CLIENTS_FILES: JSON.stringify(FILES),
      CLIENTS_APP: app, CLIENTS_KEY: keyOf(app), CLIENTS_SECRET: secretOf(app), CLIENTS_PORT: String(t.apart.port),
    },
  })
  fs.closeSync(out)
  t.onEnd(() => child.kill())
  const tail = () => fs.readFileSync(log, 'utf8').split('\n').slice(-30).join('\n')
  await until('Laravel answers', async () => (await get(port, '/version')).status === 200)
    .catch((error) => { throw new Error(`${error.message}\n${tail()}`) })
  return { url: `http://127.0.0.1:${port}`, version: (await get(port, '/version')).body, tail }
}

const checks = []
for (const connection of Object.keys(APPS)) {
  checks.push({
    name: `the ${connection} connection: broadcast, toOthers, private and presence channels`,
    async run(t) {
      const laravel = await start(t, connection)
      const chrome = await browser(t)
      const [orders, room] = [`orders.${t.name(connection)}`, `room.${t.name(connection)}`]
      try {
        const pages = []
        for (const [n, user] of ['ann', 'bob'].entries()) {
          pages.push(await come(t, chrome, laravel, connection, n, user, { orders, room }))
        }
        await post(pages[0], orders, 'to others', true)
        const bobs = await heard(pages[1], 'what ann sent', (came) => came.some(([what]) => what === 'shipped'))
        same('what bob hears', bobs.filter(([what]) => what === 'shipped'), [['shipped', { channel: orders, text: 'to others' }]])
        await post(pages[0], orders, 'to all', false)
        const anns = await heard(pages[0], 'what is for all', (came) => came.some(([what]) => what === 'shipped'))
        same('what ann hears', anns, [['here', ['Ann']], ['joining', 'Bob'], ['shipped', { channel: orders, text: 'to all' }]])
        await refused(t, chrome, laravel, connection, orders)
      } catch (error) {
        throw new Error(`${error.message}\n--- php\n${laravel.tail()}`, { cause: error })
      }
      const current = Number(laravel.version.split('.')[0]) >= 12
      return `Laravel ${laravel.version}${current ? '' : ', with a stand-in for the library: not proved with the current Laravel'}`
    },
  })
}

/** A page with Echo, in both channels. */
async function come(t, chrome, laravel, connection, n, user, names) {
  const page = await open(chrome, laravel.url)
  await page.evaluate((how) => open_echo(how), { broadcaster: connection, key: keyOf(APPS[connection]), port: t.at(n).port, user })
  await page.evaluate(({ orders, room }) => {
    echo.private(orders).listen('OrderShipped', (data) => hear('shipped', data)).error((error) => hear('error', error.status))
      .subscribed(() => echo.join(room).here((users) => hear('here', users.map((user) => user.name).sort()))
        .joining((user) => hear('joining', user.name)).error((error) => hear('error', error.status)))
  }, names)
  await heard(page, 'who is there', (came) => came.some(([what]) => what === 'here'))
  return page
}

/** A request as axios with Echo's interceptor makes it. */
async function post(page, channel, text, toOthers) {
  const [status, body] = await page.evaluate(async ({ channel, text, toOthers }) => {
    const answer = await fetch('/orders', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'X-Socket-Id': echo.socketId(), 'X-User': 'ann' },
      body: JSON.stringify({ channel, text, to_others: toOthers }),
    })
    return [answer.status, (await answer.text()).slice(0, 300)]
  }, { channel, text, toOthers })
  holds('200', status === 200, [status, body])
}

/** A user that Laravel's authorization refuses gets an error. */
async function refused(t, chrome, laravel, connection, orders) {
  const page = await open(chrome, laravel.url)
  await page.evaluate((how) => open_echo(how), { broadcaster: connection, key: keyOf(APPS[connection]), port: t.at(0).port, user: 'eve' })
  await page.evaluate((orders) => { echo.private(orders).error((error) => hear('error', error.status)) }, orders)
  same('what eve hears', await heard(page, 'a refusal', (came) => came.length > 0), [['error', 403]])
}

export default checks
