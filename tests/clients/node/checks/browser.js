// pusher-js and Echo as bundles in Chromium.
import path from 'node:path'
import { browser, heard, open, serve } from '../lib/browser.js'
import { keyOf } from '../lib/cluster.js'
import { same } from '../lib/wait.js'

/** The backend's /broadcasting/auth: the name in the request is the user, unchecked. */
const authorising = (t) => (request, answer) => {
  if (request.url !== '/broadcasting/auth') return answer.writeHead(404).end()
  let body = ''
  request.on('data', (chunk) => { body += chunk })
  request.on('end', () => {
    const { socket_id: socket, channel_name: channel } = Object.fromEntries(new URLSearchParams(body))
    const user = request.headers['x-user']
    const signed = t.sdk().authorizeChannel(socket, channel, { user_id: user, user_info: { name: user } })
    answer.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(signed))
  })
}

export default [
  {
    name: 'pusher-js connects, hears an event, sees who is there',
    async run(t) {
      const chrome = await browser(t)
      const url = await serve(t, authorising(t))
      const channel = t.name('presence-page')
      const pages = []
      for (const [n, user] of ['ann', 'bob'].entries()) {
        const page = await open(chrome, url)
        await page.evaluate(({ key, port, user, channel }) => {
          window.pusher = new Pusher(key, {
            cluster: '', wsHost: '127.0.0.1', wsPort: port, forceTLS: false, enabledTransports: ['ws'],
            channelAuthorization: { endpoint: '/broadcasting/auth', headers: { 'X-User': user } },
          })
          const room = pusher.subscribe(channel)
          room.bind('pusher:subscription_succeeded', (members) => hear('here', Object.keys(members.members).sort()))
          room.bind('pusher:member_added', (member) => hear('joining', member.id))
          room.bind('pusher:member_removed', (member) => hear('leaving', member.id))
          room.bind('shipped', (data) => hear('shipped', data))
        }, { key: keyOf('shop'), port: t.at(n).port, user, channel })
        await heard(page, 'who is there', (came) => came.length > 0)
        pages.push(page)
      }
      await t.sdk().trigger(channel, 'shipped', { text: 'grüße 🎈' })
      const anns = await heard(pages[0], 'three things', (came) => came.length >= 3)
      same('what ann hears', anns, [['here', ['ann']], ['joining', 'bob'], ['shipped', { text: 'grüße 🎈' }]])
      await pages[1].close()
      await heard(pages[0], 'that bob has gone', (came) => came.some(([what, who]) => what === 'leaving' && who === 'bob'))
      if (t.setting === 'three') await pages[0].screenshot({ path: path.join(t.suite.work, '..', 'browser.png') })
    },
  },
  {
    name: 'Echo: private, presence, whispers',
    async run(t) {
      const chrome = await browser(t)
      const url = await serve(t, authorising(t))
      const [room, orders] = [t.name('room'), t.name('orders')]
      const pages = []
      for (const [n, user] of ['ann', 'bob'].entries()) {
        const page = await open(chrome, url)
        await page.evaluate((how) => open_echo(how), { broadcaster: 'pusher', key: keyOf('shop'), port: t.at(n).port, user })
        await page.evaluate(({ room, orders }) => new Promise((resolve) => {
          echo.private(orders).listen('OrderShipped', (data) => hear('shipped', data)).subscribed(() => {
            echo.join(room).here((users) => { hear('here', users.map((user) => user.name).sort()); resolve() })
              .joining((user) => hear('joining', user.name)).listenForWhisper('typing', (data) => hear('typing', data))
          })
        }), { room, orders })
        pages.push(page)
      }
      await pages[0].evaluate(({ room }) => { echo.join(room).whisper('typing', { who: 'ann' }) }, { room })
      const bobs = await heard(pages[1], 'the whisper', (came) => came.length >= 2)
      same('what bob hears', bobs, [['here', ['ann', 'bob']], ['typing', { who: 'ann' }]])
      await t.sdk().trigger(`private-${orders}`, 'App\\Events\\OrderShipped', { id: 1 })
      const anns = await heard(pages[0], 'three things', (came) => came.length >= 3)
      same('what ann hears', anns, [['here', ['ann']], ['joining', 'bob'], ['shipped', { id: 1 }]])
    },
  },
]
