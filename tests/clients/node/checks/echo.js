// Laravel Echo as a page would make it.
import EchoModule from 'laravel-echo'
import { VERSIONS, authorizers, pageOptions } from '../lib/client.js'
import { keyOf } from '../lib/cluster.js'
import { holds, same, until } from '../lib/wait.js'

const Echo = EchoModule.default ?? EchoModule

/** The app that goes with each broadcaster of Echo's. */
const APPS = { reverb: 'reverb', pusher: 'shop' }
const DIALECT = { reverb: 'Reverb', pusher: 'Pusher' }

function open(t, broadcaster, n, { user, info, ...options } = {}) {
  const at = t.at(n)
  const app = APPS[broadcaster]
  const echo = new Echo({
    broadcaster,
    key: keyOf(app),
    Pusher: VERSIONS['pusher-js 8'],
    ...pageOptions(at),
    ...authorizers({ at, app, user, info }),
    ...options,
  })
  t.onEnd(() => echo.disconnect())
  return echo
}

const subscribed = async (channel) => {
  await until(`${channel.name} is subscribed`, () => channel.subscription.subscribed)
  return channel
}

const checks = []
for (const broadcaster of Object.keys(APPS)) {
  checks.push({
    name: `${broadcaster}: events of a private channel, by class and by name`,
    async run(t) {
      const name = t.name(`orders-${broadcaster}`)
      const echo = open(t, broadcaster, 0)
      const channel = await subscribed(echo.private(name))
      const heard = []
      channel.listen('OrderShipped', (data) => heard.push(['class', data]))
      channel.listen('.order.shipped', (data) => heard.push(['name', data]))
      await t.sdk(APPS[broadcaster]).trigger(`private-${name}`, 'App\\Events\\OrderShipped', { id: 1 })
      await t.sdk(APPS[broadcaster]).trigger(`private-${name}`, 'order.shipped', { id: 2 })
      await until('both', () => heard.length === 2)
      same('what it hears', heard, [['class', { id: 1 }], ['name', { id: 2 }]])
      holds('Echo knows its socket', /^\d+\.\d+$/.test(echo.socketId()), echo.socketId())
    },
  })
  checks.push({
    name: `${broadcaster}: here, joining, leaving`,
    async run(t) {
      const name = t.name(`room-${broadcaster}`)
      const told = []
      const ann = open(t, broadcaster, 0, { user: 1, info: { name: 'Ann' } })
      ann.join(name)
        .here((users) => told.push(['here', users.map((user) => user.name).sort()]))
        .joining((user) => told.push(['joining', user.name]))
        .leaving((user) => told.push(['leaving', user.name]))
      await until('ann is here', () => told.length === 1)
      const bob = open(t, broadcaster, 1, { user: 2, info: { name: 'Bob' } })
      const seen = []
      bob.join(name).here((users) => seen.push(users.map((user) => user.name).sort()))
      await until('bob joins', () => told.length === 2 && seen.length === 1)
      bob.leave(name)
      await until('bob leaves', () => told.length === 3)
      same('the events that ann gets', told, [['here', ['Ann']], ['joining', 'Bob'], ['leaving', 'Bob']])
      same('what bob sees', seen, [['Ann', 'Bob']])
    },
  })
  checks.push({
    name: `${broadcaster}: whispers`,
    async run(t) {
      const name = t.name(`chat-${broadcaster}`)
      const channels = []
      for (const n of [0, 1]) channels.push(await subscribed(open(t, broadcaster, n).private(name)))
      const heard = []
      channels[0].listenForWhisper('typing', () => heard.push('itself'))
      channels[1].listenForWhisper('typing', (data) => heard.push(data))
      channels[0].whisper('typing', { name: 'Ann' })
      await until('the other hears', () => heard.length > 0)
      same('who hears', heard, [{ name: 'Ann' }])
    },
  })
  checks.push({
    name: `${broadcaster}: error() where the backend refuses`,
    async run(t) {
      const refusing = { customHandler: (_, answer) => answer(new Error('403'), null) }
      const echo = open(t, broadcaster, 0, { channelAuthorization: refusing })
      const told = []
      echo.private(t.name('refused')).error((error) => told.push(error))
      await until('error() is called', () => told.length === 1)
    },
  })
  checks.push({
    name: `${broadcaster}: a signature that the server refuses, in the way of ${DIALECT[broadcaster]}`,
    async run(t) {
      const forging = { customHandler: (_, answer) => answer(null, { auth: `${keyOf(APPS[broadcaster])}:00` }) }
      const echo = open(t, broadcaster, 0, { channelAuthorization: forging })
      const told = []
      const errors = []
      echo.connector.pusher.connection.bind('error', (error) => errors.push(error.data))
      echo.private(t.name('forged')).error((error) => told.push(error.status))
      if (broadcaster === 'pusher') {
        await until('error() is called', () => told.length === 1)
        same('the status', told, [401])
      } else {
        await until('pusher:error', () => errors.length === 1)
        same('the code', errors[0].code, 4009)
      }
    },
  })
}

checks.push({
  name: 'pusher: an encrypted private channel',
  async run(t) {
    const name = t.name('sealed')
    const channel = await subscribed(open(t, 'pusher', 1).encryptedPrivate(name))
    const heard = []
    channel.listen('.secret', (data) => heard.push(data))
    await t.sdk().trigger(`private-encrypted-${name}`, 'secret', { n: 1 })
    await until('it hears', () => heard.length === 1)
    same('what it hears', heard, [{ n: 1 }])
  },
})

export default checks
