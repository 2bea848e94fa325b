// Laravel Echo's broadcaster "socket.io", with the clients of both versions of Engine.IO, their default options,
// and a stub of Laravel's /broadcasting/auth. Their connections, or requests, are spread over the gateways in turn.
import http from 'node:http'
import Echo1Module from 'laravel-echo-1'
import EchoModule from 'laravel-echo'
import io2 from 'socket.io-client-2'
import { io as io4 } from 'socket.io-client-4'
import { browser, heard, open, serve } from '../lib/browser.js'
import { keyOf } from '../lib/cluster.js'
import { requestRobin, roundRobin } from '../lib/robin.js'
import { holds, same, until } from '../lib/wait.js'

const APP = 'socketio'
const PAIRS = {
  'Echo 2, socket.io-client 4': [EchoModule.default ?? EchoModule, io4],
  'Echo 2, socket.io-client 2': [EchoModule.default ?? EchoModule, io2],
  'Echo 1, socket.io-client 2': [Echo1Module.default ?? Echo1Module, io2],
}

/** Answers as Laravel's driver `redis` does: users are who their bearer tokens say, or else their session's cookies. */
async function laravel(t) {
  const server = http.createServer((request, answer) => {
    let body = ''
    request.on('data', (data) => { body += data })
    request.on('end', () => {
      const channel = new URLSearchParams(body).get('channel_name')
      const cookie = /laravel_session=(\w+)/.exec(request.headers.cookie ?? '')?.[1]
      const user = (request.headers.authorization ?? '').replace('Bearer ', '') || cookie
      if (!user) return answer.writeHead(403).end('{"message":""}')
      const member = { channel_data: { user_id: user, user_info: { id: user, name: user } } }
      answer.end(channel.startsWith('presence-') ? JSON.stringify(member) : 'true')
    })
  })
  await new Promise((done) => server.listen(t.cluster.backendPort, '127.0.0.1', done))
  t.onEnd(() => { server.closeAllConnections(); server.close() })
}

const keyed = { query: { key: keyOf(APP) }, forceNew: true }

const checks = [['socket.io-client 2', io2], ['socket.io-client 4', io4]].map(([name, io]) => ({
  name: `${name}: default options, without sticky sessions`,
  async run(t) {
    const { url } = await roundRobin(t)
    const clients = Array.from({ length: 10 }, () => io(url, { ...keyed }))
    t.onEnd(() => clients.forEach((client) => client.close()))
    let drops = 0
    clients.forEach((client) => client.on('disconnect', () => { drops += 1 }))
    await until('all are connected', () => clients.every((client) => client.connected))
    holds('ids are those of Pusher clients', clients.every(({ id }) => /^\d+\.\d+$/.test(id)), clients[0].id)
    holds('all are connected by WebSocket', clients.every((client) => client.io.engine.transport.name === 'websocket'))
    same('disconnects', drops, 0)
  },
}))

for (const [name, [Echo, client]] of Object.entries(PAIRS)) {
  checks.push({
    name: `${name}: private and presence channels, whispers, refusals, to others`,
    async run(t) {
      await laravel(t)
      const { url: host } = await roundRobin(t)
      const open = (user) => {
        const headers = user ? { Authorization: `Bearer ${user}` } : {}
        const echo = new Echo({ broadcaster: 'socket.io', client, host, auth: { headers }, ...keyed })
        t.onEnd(() => echo.disconnect())
        return echo
      }
      const [ann, bob, nobody] = [open('ann'), open('bob'), open('')]
      await until('all are connected', () => [ann, bob, nobody].every((echo) => echo.socketId()))
      const told = []
      const name = t.name('room')
      ann.join(name)
        .here((users) => told.push(['here', users.map((user) => user.name).sort()]))
        .joining((user) => told.push(['joining', user.name]))
        .leaving((user) => told.push(['leaving', user.name]))
        .listenForWhisper('typing', (data) => told.push(['whisper', data]))
      await until('ann is here', () => told.length === 1)
      const seen = []
      const room = bob.join(name).here((users) => seen.push(users.map((user) => user.name).sort()))
      await until('bob joins', () => told.length === 2 && seen.length === 1)
      room.whisper('typing', { who: 'bob' })
      await until('ann hears the whisper', () => told.length === 3)
      bob.leave(name)
      await until('bob leaves', () => told.length === 4)
      same('what ann hears', told, [['here', ['ann']], ['joining', 'bob'], ['whisper', { who: 'bob' }], ['leaving', 'bob']])
      same('what bob sees', seen, [['ann', 'bob']])

      const refused = []
      nobody.connector.socket.on('subscription_error', (...args) => refused.push(args))
      nobody.private('orders.1')
      await until('a refusal', () => refused.length === 1)
      same('the refusal', refused, [['private-orders.1', 403]])

      const heard = []
      ann.private(t.name('orders')).listen('.shipped', (data) => heard.push(['ann', data]))
      bob.private(t.name('orders')).listen('.shipped', (data) => heard.push(['bob', data]))
      const sdk = t.sdk(APP)
      const count = async () => (await (await sdk.get({ path: `/channels/private-${t.name('orders')}`, params: { info: 'subscription_count' } })).json()).subscription_count
      await until('both are in', async () => (await count()) === 2)
      await sdk.trigger(`private-${t.name('orders')}`, 'shipped', { id: 1 }, { socket_id: ann.socketId() })
      await sdk.trigger(`private-${t.name('orders')}`, 'shipped', { id: 2 })
      await until('all events', () => heard.length >= 3)
      same('who hears what', heard.map(([who, { id }]) => `${who} ${id}`).sort(), ['ann 2', 'bob 1', 'bob 2'])
    },
  })
}

// The polling begins with requests across origins; only the handshake of the WebSocket always has the cookies.
const VARIANTS = { plain: {}, credentials: { withCredentials: true }, preflight: { extraHeaders: { 'X-Asked': '1' }, transportOptions: { polling: { extraHeaders: { 'X-Asked': '1' } } } } }
for (const bundle of ['io2', 'io4']) {
  checks.push({
    name: `socket.io-client ${bundle.at(-1)} in Chromium: from another origin, with and without credentials, each request at another gateway`,
    settings: ['three'],
    async run(t) {
      await laravel(t)
      const chrome = await browser(t)
      const { url: host, methods } = await requestRobin(t)
      const page = await open(chrome, await serve(t))
      await page.addScriptTag({ url: `/js/${bundle}.js` })
      const [orders, names] = [`private-${t.name('orders')}`, Object.keys(VARIANTS)]
      await page.evaluate(({ host, key, orders, variants }) => {
        document.cookie = 'laravel_session=ann'
        for (const [name, options] of Object.entries(variants)) {
          const socket = io(host, { query: { key }, forceNew: true, ...options })
          socket.on('connect', () => hear('connect', name, socket.io.engine.transport.name))
          for (const event of ['disconnect', 'connect_error', 'subscription_error']) socket.on(event, (...what) => hear(event, name, String(what)))
          socket.on('shipped', (channel, data) => hear('shipped', name, channel, data))
          socket.emit('subscribe', { channel: orders, auth: { headers: {} } })
        }
      }, { host, key: keyOf(APP), orders, variants: VARIANTS })
      const sdk = t.sdk(APP)
      const count = async () => (await (await sdk.get({ path: `/channels/${orders}`, params: { info: 'subscription_count' } })).json()).subscription_count
      await until('all are in', async () => (await count()) === names.length)
      await sdk.trigger(orders, 'shipped', { text: 'grüße 🎈' })
      const came = await heard(page, 'all events', (came) => came.filter(([what]) => what === 'shipped').length === names.length)
      const of = (what) => came.filter(([other]) => other === what).map(([, ...rest]) => rest).sort()
      same('who is connected', of('connect'), names.map((name) => [name, 'websocket']).sort())
      same('who hears what', of('shipped'), names.map((name) => [name, orders, { text: 'grüße 🎈' }]).sort())
      same('what the page hears', came.length, 2 * names.length)
      same('methods of its requests', [...new Set(methods)].sort(), ['GET', 'OPTIONS', 'POST'].filter((method) => bundle === 'io4' || method !== 'POST'))
    },
  })
}

export default checks
