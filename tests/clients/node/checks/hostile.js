// Input that no library sends: malformed, binary, huge, too much. It gets the specified error and affects no other client.
import { fence } from '../lib/client.js'
import { get } from '../lib/cluster.js'
import { fetched } from '../lib/sdk.js'
import { holds, same, until } from '../lib/wait.js'

/** An honest client that must not be affected. */
async function bystander(t) {
  const channel = t.name('private-bystander')
  const clients = [t.client({ at: t.at(0) }), t.client({ at: t.at(1) })]
  for (const client of clients) await client.subscribed(channel)
  return async () => {
    await fence(t.sdk(), channel, clients)
    for (const client of clients) {
      same('the bystander', [client.state, client.errors, client.states.includes('disconnected')], ['connected', [], false])
    }
  }
}

const MALFORMED = [
  '', '{', 'null', '[]', '7', '"text"', '{}', '{"event":7}', '{"event":null,"data":{}}', '{"data":{}}',
  '{"event":"pusher:subscribe"}', '{"event":"pusher:subscribe","data":"x"}', '{"event":"pusher:subscribe","data":{}}',
  '{"event":"pusher:subscribe","data":{"channel":7}}', '{"event":"pusher:unsubscribe","data":[]}',
  '{"event":"pusher:signin","data":{}}', '{"event":"pusher:nothing","data":{}}',
  '{"event":"pusher_internal:member_added","channel":"presence-x","data":"{}"}',
  '{"event":"client-x"}', '{"event":"client-x","channel":[],"data":{}}', '[' .repeat(2000), '\u0000', '{"event":"x","channel":"a","data":{}}',
]

export default [
  {
    name: 'malformed frames are answered with 4200, and the connection stays',
    async run(t) {
      const unmoved = await bystander(t)
      for (const app of ['shop', 'reverb']) {
        const raw = await t.raw({ app })
        for (const text of MALFORMED) {
          const before = raw.got('pusher:error').length
          raw.send(text)
          await raw.settled()
          const errors = raw.got('pusher:error').slice(before)
          same(`errors after ${text.slice(0, 60)} (${app})`, errors.length, 1)
          const data = app === 'reverb' ? JSON.parse(errors[0].data) : errors[0].data
          holds(`4200 or null after ${text.slice(0, 60)}`, [4200, null].includes(data.code), data)
          if (app === 'reverb' && data.code === 4200) same('the text', data.message, 'Invalid message format')
        }
      }
      await unmoved()
    },
  },
  {
    name: 'data of pusher events may be a JSON string, auth may be null',
    async run(t) {
      const raw = await t.raw()
      const [text, none] = [t.name('as-text'), t.name('auth-null')]
      raw.say('pusher:subscribe', JSON.stringify({ channel: text }))
      await raw.gets('pusher_internal:subscription_succeeded', text)
      raw.say('pusher:subscribe', { channel: none, auth: null, channel_data: null })
      const frame = await raw.gets('pusher_internal:subscription_succeeded', none)
      same('its data is a string', frame.data, '{}')
      raw.send('{"event":"pusher:ping"}')
      same('a pong', await raw.gets('pusher:pong'), { event: 'pusher:pong', data: {} })
    },
  },
  {
    name: 'binary frames are refused politely',
    async run(t) {
      const unmoved = await bystander(t)
      const raw = await t.raw()
      raw.socket.send(Buffer.from('{"event":"pusher:ping","data":{}}'), { binary: true })
      const error = await raw.gets('pusher:error')
      same('the code', error.data.code, 4200)
      await raw.settled()
      await unmoved()
    },
  },
  {
    name: 'names and data that are too long or wrong',
    async run(t) {
      const unmoved = await bystander(t)
      const raw = await t.raw()
      for (const channel of ['x'.repeat(201), 'a b', 'ä', 'a/b', '', '#x']) {
        const before = raw.got('pusher:subscription_error').length
        raw.say('pusher:subscribe', { channel, auth: '' })
        await raw.settled()
        const errors = raw.got('pusher:subscription_error').slice(before)
        same(`errors for ${channel.slice(0, 10)}`, errors.length, 1)
        holds('a status of 400 or 401', [400, 401].includes(errors[0].data.status), errors[0])
      }
      const longest = `${t.name('x')}-`.padEnd(200, 'y')
      raw.say('pusher:subscribe', { channel: longest, auth: '' })
      await raw.gets('pusher_internal:subscription_succeeded', longest)
      const channel = t.name('private-long')
      raw.say('pusher:subscribe', { channel, ...t.sdk().authorizeChannel(raw.socketId, channel) })
      await raw.gets('pusher_internal:subscription_succeeded', channel)
      for (const [event, data] of [[`client-${'x'.repeat(200)}`, {}], ['client-x', 'y'.repeat(10_241)]]) {
        const before = raw.got('pusher:error').length
        raw.say(event, data, channel)
        await raw.settled()
        same(`errors for ${event.slice(0, 20)}`, raw.got('pusher:error').length, before + 1)
      }
      await unmoved()
    },
  },
  {
    name: 'members that are not as they must be',
    async run(t) {
      const unmoved = await bystander(t)
      const raw = await t.raw()
      const server = t.sdk()
      const channel = t.name('presence-odd')
      const sign = (text) => server.authorizeChannel(raw.socketId, channel, undefined) && signed(server, raw.socketId, channel, text)
      for (const text of ['{', '[]', '{}', '{"user_id":null}', '{"user_id":""}', '{"user_id":{}}',
        JSON.stringify({ user_id: 'x'.repeat(300) }), JSON.stringify({ user_id: 'u', user_info: 'y'.repeat(5000) })]) {
        const before = raw.got('pusher:subscription_error').length
        raw.say('pusher:subscribe', { channel, channel_data: text, auth: sign(text) })
        await raw.settled()
        same(`errors for ${text.slice(0, 40)}`, raw.got('pusher:subscription_error').length, before + 1)
      }
      same('no user was admitted', await fetched(server, `/channels/${channel}/users`), { users: [] })
      await unmoved()
    },
  },
  {
    name: 'floods of frames disturb no other client',
    async run(t) {
      const unmoved = await bystander(t)
      const floods = await Promise.all([0, 1, 0, 1].map((n) => t.raw({ at: t.at(n) })))
      for (let n = 0; n < 5000; n++) {
        floods[0].say('pusher:ping', {})
        floods[1].send('{')
        floods[2].say('pusher:subscribe', { channel: `flood-${n % 50}`, auth: '' })
        floods[3].say('client-x', n, 'private-nowhere')
      }
      await unmoved()
      await floods[0].gets('pusher:pong', undefined, 5000)
      for (const flood of floods.slice(1)) await until('each is answered', () => flood.closed || flood.frames.length > 5000, 60_000)
      same('who was closed', floods.map((flood) => flood.closed), [null, null, null, null])
      await unmoved()
    },
  },
  {
    name: 'more members than a channel may have are refused',
    async run(t) {
      const channel = t.name('presence-full')
      const server = t.sdk()
      const raws = []
      for (let n = 0; n < 101; n++) {
        const raw = await t.raw({ at: t.at(n) })
        raw.say('pusher:subscribe', { channel, ...server.authorizeChannel(raw.socketId, channel, { user_id: `u${n}` }) })
        await until('an answer', () => raw.got('pusher_internal:subscription_succeeded').length + raw.got('pusher:subscription_error').length > 0)
        raws.push(raw)
      }
      same('who came in', raws.filter((raw) => raw.got('pusher_internal:subscription_succeeded').length > 0).length, 100)
      const error = raws[100].got('pusher:subscription_error')[0]
      same('the last is refused, for its number', [error?.data.status, /100/.test(error?.data.error)], [403, true])
      same('GET users', (await fetched(server, `/channels/${channel}/users`)).users.length, 100)
      const told = raws[0].got('pusher_internal:member_added').map((frame) => JSON.parse(frame.data).user_id)
      holds('the last one was not announced', !told.includes('u100'), told.slice(-2))
    },
  },
  {
    name: 'protocols and paths',
    async run(t) {
      for (const [query, code] of [['?protocol=3', 4007], ['?protocol=99', 4007], ['?protocol=x', 4006]]) {
        const raw = await t.raw({ query })
        await until(`${query} is closed`, () => raw.closed)
        same(`the code for ${query}`, raw.closed.code, code)
        same('the error before', raw.got('pusher:error')[0]?.data.code, code)
      }
      for (const query of ['', '?protocol=4', '?protocol=5', '?protocol=6&client=x', '?version=2']) {
        const raw = await t.raw({ query })
        holds(`${query} is let in`, raw.socketId, raw.frames)
      }
      const up = await get(t.at(0).port, '/up')
      same('/up', [up.status, JSON.parse(up.body)], [200, { health: 'OK' }])
      const plain = await get(t.at(0).port, '/app/shop-key')
      holds('a request without an upgrade', [400, 426].includes(plain.status), plain)
    },
  },
  {
    name: 'requests of the HTTP API that are nonsense',
    async run(t) {
      const unmoved = await bystander(t)
      const server = t.sdk()
      const ask = async (path, body, method = 'POST') => {
        const query = server.createSignedQueryString({ method, path, body })
        const answer = await fetch(`http://127.0.0.1:${t.apart.port}${path}?${query}`, { method, body: method === 'POST' ? body : undefined })
        return [answer.status, await answer.text()]
      }
      for (const body of ['{', '[]', '7', '"x"', '{"name":1,"channel":"a","data":"x"}', '{"name":"e","channels":"a","data":"x"}',
        '{"name":"e","channels":[],"data":"x"}', '{"name":"e","channels":[1],"data":"x"}', '{"name":"e","channel":"a"}']) {
        const [status, text] = await ask('/apps/shop/events', body)
        same(`the status for ${body}`, status, 400)
        holds('one sentence', text.length > 0 && text.length < 300 && !text.includes('<'), text)
      }
      same('an unknown path', (await ask('/apps/shop/nothing', '{}'))[0], 404)
      same('another method', (await ask('/apps/shop/events', '', 'GET'))[0] >= 400, true)
      same('a body that is not the signed one', (await fetch(
        `http://127.0.0.1:${t.apart.port}/apps/shop/events?${server.createSignedQueryString({ method: 'POST', path: '/apps/shop/events', body: '{"a":1}' })}`,
        { method: 'POST', body: '{"a":2}' })).status, 401)
      const big = '{"name":"e","channel":"a","data":"' + 'x'.repeat(20_000_000) + '"}'
      const status = await ask('/apps/shop/events', big).then(([code]) => code, () => 'hung up')
      holds('20 MB: 413, or hung up', [413, 'hung up'].includes(status), status)
      await unmoved()
    },
  },
  {
    name: 'huge frames close their own connections alone',
    async run(t) {
      // All that they can break belongs to this check.
      await t.fresh(t.cluster.gateways.length)
      const unmoved = await bystander(t)
      const huge = await Promise.all([70_000, 200_000, 2_000_000, 2_000_000].map(async (bytes) => {
        const raw = await t.raw()
        raw.say('client-x', 'x'.repeat(bytes), 'private-x')
        return raw
      }))
      for (const raw of huge) await until('it is closed', () => raw.closed)
      await unmoved()
      const others = await Promise.all(Array.from({ length: 16 }, () => t.raw()))
      holds('every shard takes clients in', others.every((raw) => raw.socketId), others.map((raw) => raw.closed))
      const codes = huge.map((raw) => raw.closed.code)
      holds('1009 for who still listens', codes.every((code) => [1009, 1006].includes(code)), codes)
      return `closed with ${codes}`
    },
  },
]

/** The library signs no nonsense. */
function signed(server, socketId, channel, text) {
  const { key } = server.config.token
  return `${key}:${server.config.token.sign(`${socketId}:${channel}:${text}`)}`
}
