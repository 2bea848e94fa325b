// Clients over wss, at a gateway that ends TLS itself.
import EchoModule from 'laravel-echo'
import { VERSIONS, authorizers } from '../lib/client.js'
import { browser, heard, open, serve } from '../lib/browser.js'
import { keyOf } from '../lib/cluster.js'
import { same, until } from '../lib/wait.js'

const Echo = EchoModule.default ?? EchoModule

const secure = (at) => ({
  cluster: '', wsHost: '127.0.0.1', wsPort: at.tls, wssPort: at.tls, forceTLS: true, enabledTransports: ['ws', 'wss'], enableStats: false,
})

const checks = Object.keys(VERSIONS).map((version) => ({
  name: `${version} over wss, in an app that takes no others`,
  settings: ['one'],
  async run(t) {
    const client = await t.client({ version, app: 'sealed', user: 'ann', ...secure(t.at()) }).connected()
    const name = t.name('presence-tls')
    const channel = await client.subscribed(name)
    same('who is there', channel.members.count, 1)
    const text = 'x'.repeat(9000)
    await t.sdk('sealed').trigger(name, 'shipped', { text })
    await client.gets('shipped', name)
    same('what came', client.events(name), [['shipped', { text }]])
  },
}))

checks.push({
  name: 'Echo over wss: a private channel',
  settings: ['one'],
  async run(t) {
    const at = t.at()
    const echo = new Echo({
      broadcaster: 'pusher', key: keyOf('sealed'), Pusher: VERSIONS['pusher-js 8'],
      ...secure(at), ...authorizers({ at, app: 'sealed', user: 'ann' }),
    })
    t.onEnd(() => echo.disconnect())
    const name = t.name('orders')
    const channel = echo.private(name)
    const came = []
    channel.listen('.shipped', (data) => came.push(data))
    await until('it is subscribed', () => channel.subscription.subscribed)
    await t.sdk('sealed').trigger(`private-${name}`, 'shipped', { id: 1 })
    await until('the event comes', () => came.length > 0)
    same('what came', came, [{ id: 1 }])
  },
})

checks.push({
  name: 'pusher-js in Chromium over wss',
  settings: ['one'],
  async run(t) {
    const page = await open(await browser(t, ['--ignore-certificate-errors']), await serve(t))
    const name = t.name('tls-page')
    await page.evaluate(({ key, how, name }) => {
      const room = new Pusher(key, how).subscribe(name)
      room.bind('pusher:subscription_succeeded', () => hear('here', null))
      room.bind('shipped', (data) => hear('shipped', data))
    }, { key: keyOf('sealed'), how: secure(t.at()), name })
    await heard(page, 'the subscription', (came) => came.length > 0)
    await t.sdk('sealed').trigger(name, 'shipped', { text: 'grüße' })
    const came = await heard(page, 'the event', (came) => came.length > 1)
    same('what the page hears', came, [['here', null], ['shipped', { text: 'grüße' }]])
  },
})

export default checks
