// A Laravel application broadcasts and authorises; Echo in Chromium hears. Over Socket.IO the gateways ask it.
import fs from 'node:fs'
import path from 'node:path'
import Echo1Module from 'laravel-echo-1'
import io2 from 'socket.io-client-2'
import { FILES, browser, heard, open } from '../lib/browser.js'
import { freePorts, get, keyOf, secretOf } from '../lib/cluster.js'
import { run } from '../lib/processes.js'
import { roundRobin } from '../lib/robin.js'
import { fetched } from '../lib/sdk.js'
import { Skipped } from '../lib/suite.js'
import { holds, same, until } from '../lib/wait.js'

const APPS = { pusher: 'shop', reverb: 'reverb', ably: 'ably' }
const CODE = path.join(import.meta.dirname, '../../laravel')

/** The application, with its broadcasts going to the gateway that is apart. */
async function start(t, connection, { app = APPS[connection], port, redis } = {}) {
  if (!process.env.CLIENTS_PHP) throw new Skipped('PHP with Laravel is not available')
  const storage = path.join(t.suite.work, t.name(`laravel-${connection}`))
  for (const folder of ['framework/views', 'logs']) fs.mkdirSync(path.join(storage, folder), { recursive: true })
  port ??= (await freePorts(1))[0]
  const log = path.join(storage, 'php.log')
  const out = fs.openSync(log, 'w')
  const child = run(process.env.CLIENTS_PHP, ['-d', 'display_errors=stderr', '-d', `curl.cainfo=${process.env.NODE_EXTRA_CA_CERTS}`, '-S', `127.0.0.1:${port}`, 'index.php'], {
    cwd: CODE,
    stdio: ['ignore', out, out],
    env: {
      ...process.env,
      APP_PACKAGES_CACHE: path.join(storage, 'packages.php'), APP_SERVICES_CACHE: path.join(storage, 'services.php'),
      BROADCAST_CONNECTION: connection, CLIENTS_STORAGE: storage, CLIENTS_FILES: JSON.stringify(FILES),
      CLIENTS_APP: app, CLIENTS_KEY: keyOf(app), CLIENTS_SECRET: secretOf(app), CLIENTS_PORT: String(t.apart.port), CLIENTS_TLS_PORT: String(t.apart.tls), CLIENTS_REDIS_PORT: String(redis ?? ''),
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
    // Only the gateway that is alone has TLS, without which Ably's library sends no key.
    ...(connection === 'ably' ? { settings: ['one'] } : {}),
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
        same('what bob hears', bobs.filter(([what]) => what === 'shipped'), [['shipped', shipped(connection, orders, 'to others', pages[0].socketId)]])
        await post(pages[0], orders, 'to all', false)
        const anns = await heard(pages[0], 'what is for all', (came) => came.some(([what]) => what === 'shipped'))
        same('what ann hears', anns, [['here', ['Ann']], ['joining', 'Bob'], ['shipped', shipped(connection, orders, 'to all', null)]])
        await refused(t, chrome, laravel, connection, orders)
      } catch (error) {
        throw new Error(`${error.message}\n--- php\n${laravel.tail()}`, { cause: error })
      }
      const current = Number(laravel.version.split('.')[0]) >= 12
      return `Laravel ${laravel.version}${current ? '' : ', with a stand-in for the library: not proved with the current Laravel'}`
    },
  })
}

/** What a page hears. Ably's driver leaves the excluded client's id in the data. */
const shipped = (connection, channel, text, socket) => ({ channel, text, ...(connection === 'ably' ? { socket } : {}) })

/** A page with Echo, in both channels. */
async function come(t, chrome, laravel, connection, n, user, names) {
  const page = await open(chrome, laravel.url)
  page.socketId = await page.evaluate((how) => open_echo(how), { broadcaster: connection, key: keyOf(APPS[connection]), port: t.at(n).port, user })
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

// --- Over Socket.IO: clients bring no signature, and the gateways ask the application in their names.

const SOCKETIO = { app: 'socketio' }

// The driver of laravel-echo-server's documentation, where it can be had.
const OF_ECHO_SERVER = process.env.CLIENTS_REDIS ? 'redis' : 'pusher'

checks.push({
  name: `Echo 1 with socket.io-client 2, as for laravel-echo-server, the ${OF_ECHO_SERVER} connection: private, presence, whispers, toOthers, by three gateways`,
  settings: ['three'],
  async run(t) {
    const redis = OF_ECHO_SERVER === 'redis' ? await startRedis(t) : undefined
    const laravel = await start(t, OF_ECHO_SERVER, { ...SOCKETIO, port: t.cluster.backendPort, redis })
    const chrome = await browser(t)
    const { url: host } = await roundRobin(t)
    const [orders, room] = [`orders.${t.name('io')}`, `room.${t.name('io')}`]
    try {
      const pages = []
      for (const user of ['ann', 'bob']) pages.push(await comeBySocketIo(chrome, laravel, host, user, { orders, room }))
      const [ann, bob] = pages
      await count(t, `private-${orders}`, 2)
      await ann.evaluate((room) => echo.join(room).whisper('typing', { who: 'ann' }), room)
      await post(ann, orders, 'to others', true)
      const shipped = (text) => ['shipped', { channel: orders, text, socket: null }]
      const bobs = await heard(bob, 'what ann sent', (came) => came.length >= 3)
      same('what bob hears', bobs.map(unsocketed), [['here', ['Ann', 'Bob']], ['typing', { who: 'ann' }], shipped('to others')])
      await post(ann, orders, 'to all', false)
      const anns = await heard(ann, 'what is for all', (came) => came.some(([what]) => what === 'shipped'))
      same('what ann hears', anns.map(unsocketed), [['here', ['Ann']], ['joining', 'Bob'], shipped('to all')])
      await bob.close()
      await heard(ann, 'that bob leaves', (came) => came.some(([what, who]) => what === 'leaving' && who === 'Bob'))
      for (const user of ['eve', '']) {
        const page = await openBySocketIo(chrome, laravel, host, user)
        await page.evaluate((orders) => { echo.private(orders) }, orders)
        same(`what ${user || 'nobody'} hears`, await heard(page, 'a refusal', (came) => came.length > 0), [['refused', `private-${orders}`, 403]])
      }
    } catch (error) {
      throw new Error(`${error.message}\n--- php\n${laravel.tail()}`, { cause: error })
    }
    return `Laravel ${laravel.version}`
  },
})

/** Redis, and a cluster whose gateways read from it; the port. */
async function startRedis(t) {
  const [port] = await freePorts(1)
  const child = run(process.env.CLIENTS_REDIS, ['--port', String(port), '--bind', '127.0.0.1', '--save', ''], { stdio: 'ignore', cwd: t.suite.work })
  t.onEnd(() => child.kill())
  await t.fresh(3, { [SOCKETIO.app]: `[apps.redis]\nurl = "redis://127.0.0.1:${port}"\nprefix = "laravel_database_"` })
  for (const gateway of t.cluster.gateways) {
    await until(`${gateway.name} reads from Redis`, async () => await t.cluster.metric(gateway, `broadgate_gateway_redis_disconnected{app="${SOCKETIO.app}"}`) === 0)
  }
  return port
}

/** Laravel's driver puts the sender's socket into the data; which one, depends on the driver. */
const unsocketed = ([what, data]) => [what, what === 'shipped' ? { ...data, socket: null } : data]

/** A page with Echo's options of laravel-echo-server's documentation: there is no key in them. */
async function openBySocketIo(chrome, laravel, host, user) {
  const page = await open(chrome, laravel.url)
  for (const url of ['/js/io2.js', '/js/echo1.js']) await page.addScriptTag({ url })
  await page.evaluate(({ host, user }) => new Promise((resolve) => {
    const headers = user ? { Authorization: `Bearer ${user}` } : {}
    window.echo = new (window.Echo.default ?? window.Echo)({ broadcaster: 'socket.io', host, auth: { headers } })
    echo.connector.socket.on('subscription_error', (channel, status) => hear('refused', channel, status))
    echo.connector.socket.on('connect', resolve)
  }), { host, user })
  return page
}

async function comeBySocketIo(chrome, laravel, host, user, names) {
  const page = await openBySocketIo(chrome, laravel, host, user)
  await page.evaluate(({ orders, room }) => {
    echo.private(orders).listen('OrderShipped', (data) => hear('shipped', data))
    echo.join(room).here((users) => hear('here', users.map((user) => user.name).sort())).joining((user) => hear('joining', user.name))
      .leaving((user) => hear('leaving', user.name)).listenForWhisper('typing', (data) => hear('typing', data))
  }, names)
  await heard(page, 'who is there', (came) => came.some(([what]) => what === 'here'))
  return page
}

/** Until a channel has so many subscribers. */
const count = (t, channel, wanted, at = t.apart) => until(`${wanted} subscribers of ${channel}`, async () => {
  const { subscription_count: came } = await fetched(t.sdk(SOCKETIO.app, at), `/channels/${channel}`, { info: 'subscription_count' })
  return came === wanted || Promise.reject(new Error(`${came} subscribers`))
}, 60_000)

const Echo1 = Echo1Module.default ?? Echo1Module

checks.push({
  name: 'Socket.IO: kill -9 of a gateway, a drain, a kick',
  settings: ['three'],
  async run(t) {
    const { gateways } = await t.fresh(3)
    const laravel = await start(t, 'pusher', { ...SOCKETIO, port: t.cluster.backendPort })
    const robin = await roundRobin(t)
    const room = `room.${t.name('io')}`
    const people = {}
    const come = (user, n, options = {}) => {
      robin.next = n
      const it = { user, here: [], leaving: [], present: new Set(), heard: [], connects: 0, disconnects: [] }
      // One request, so that its gateway is known.
      it.echo = new Echo1({
        broadcaster: 'socket.io', client: io2, host: robin.url, forceNew: true, transports: ['websocket'],
        reconnectionDelay: 200, reconnectionDelayMax: 400, auth: { headers: { Authorization: `Bearer ${user}` } }, ...options,
      })
      t.onEnd(() => it.echo.disconnect())
      it.echo.connector.socket.on('connect', () => { it.connects += 1 })
      it.echo.connector.socket.on('disconnect', (why) => it.disconnects.push(why))
      it.echo.join(room).here((users) => { it.here.push(1); it.present = new Set(users.map((user) => user.id)) })
        .joining((user) => it.present.add(user.id)).leaving((user) => { it.leaving.push(user.id); it.present.delete(user.id) })
        .listen('.news', (data) => it.heard.push(data.n))
      people[user] = it
      return until(`${user} is here`, () => it.here.length === 1)
    }
    const present = (it) => [...it.present].sort()
    /** All of them see all of them, as does the API; and all hear the next message, once. */
    let n = 0
    const right = async (users, at) => {
      for (const user of users) await until(`${user} sees ${users}`, () => String(present(people[user])) === String(users) || Promise.reject(new Error(present(people[user]))), 60_000)
      const { users: told } = await fetched(t.sdk(SOCKETIO.app, at), `/channels/presence-${room}/users`)
      same('who is there, by the API', told.map(({ id }) => id).sort(), users)
      n += 1
      await t.sdk(SOCKETIO.app, at).trigger(`presence-${room}`, 'news', { n })
      for (const user of users) await until(`${user} hears ${n}`, () => people[user].heard.at(-1) === n)
    }
    try {
      await come('ann', 0)
      await come('bob', 1, { reconnection: false })
      await come('cat', 1)
      await come('dan', 2)
      await right(['ann', 'bob', 'cat', 'dan'], gateways[2])

      const begun = Date.now()
      await t.cluster.kill(gateways[1].name)
      await right(['ann', 'cat', 'dan'], gateways[2])
      const seconds = ((Date.now() - begun) / 1000).toFixed(1)
      for (const user of ['ann', 'dan']) same(`whom ${user} sees leave`, people[user].leaving.filter((gone) => gone === 'bob'), ['bob'])
      for (const user of ['ann', 'dan']) same(`connections of ${user}`, people[user].connects, 1)
      await come('eve', 2)
      await right(['ann', 'cat', 'dan', 'eve'], gateways[2])

      // Its clients come back by themselves, to the gateway that is left.
      t.cluster.running.get(gateways[0].name).kill('SIGTERM')
      await until('ann has come back', () => people.ann.connects === 2, 60_000)
      await right(['ann', 'cat', 'dan', 'eve'], gateways[2])
      holds('no client is disconnected for good', !people.ann.disconnects.includes('io server disconnect'), people.ann.disconnects)

      const before = Object.values(people).map((it) => it.connects)
      const kick = run(t.suite.executable, ['kick', '--addr', `127.0.0.1:${gateways[2].internal}`, '--app', SOCKETIO.app, '--group', `presence-${room}`], { stdio: 'ignore' })
      await until('the kick is done', () => kick.ended)
      same('the kick', kick.ended.code, 0)
      const kicked = ['ann', 'cat', 'dan', 'eve'].map((user) => people[user])
      await until('all were disconnected by the server', () => kicked.every((it) => it.disconnects.at(-1) === 'io server disconnect'))
      await count(t, `presence-${room}`, 0, gateways[2])
      // Three times as long as those take that come back.
      await new Promise((resolve) => setTimeout(resolve, 1_500))
      same('who has connected again', Object.values(people).map((it) => it.connects), before)
      return `Laravel ${laravel.version}; right ${seconds} s after the kill`
    } catch (error) {
      throw new Error(`${error.message}\n--- php\n${laravel.tail()}`, { cause: error })
    }
  },
})

export default checks
