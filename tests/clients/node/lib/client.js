// pusher-js as a page would use it, with a record of all that came.
import Pusher7 from 'pusher-js-7'
import Pusher8 from 'pusher-js-8'
import { keyOf } from './cluster.js'
import { sdk } from './sdk.js'
import { show, until } from './wait.js'

export const VERSIONS = { 'pusher-js 8': Pusher8, 'pusher-js 7': Pusher7 }

/** The options that every page gives that talks to a server of its own. */
export const pageOptions = (at) => ({
  cluster: '',
  wsHost: '127.0.0.1',
  wsPort: at.port,
  forceTLS: false,
  enabledTransports: ['ws'],
  enableStats: false,
})

/** Signs as a backend does: `user` is who is logged in there. */
export function authorizers({ at, app, user, info, watchlist }) {
  const server = sdk(at, app)
  const answering = (sign) => (params, answer) => {
    let signed
    try {
      signed = sign(params)
    } catch (error) {
      return answer(error, null)
    }
    answer(null, signed)
  }
  return {
    channelAuthorization: {
      customHandler: answering(({ socketId, channelName }) => {
        const member = channelName.startsWith('presence-') ? { user_id: user, ...(info && { user_info: info }) } : undefined
        return server.authorizeChannel(socketId, channelName, member)
      }),
    },
    userAuthentication: {
      customHandler: answering(({ socketId }) =>
        server.authenticateUser(socketId, { id: String(user), ...(info && { user_info: info }), ...(watchlist && { watchlist }) })),
    },
  }
}

export class Client {
  /** Every frame that came, parsed as pusher-js does. */
  frames = []
  errors = []
  states = []

  constructor({ at, app = 'shop', key = keyOf(app), version = 'pusher-js 8', user, info, watchlist, ...options }) {
    Object.assign(this, { at, app })
    this.pusher = new VERSIONS[version](key, {
      ...pageOptions(at),
      ...authorizers({ at, app, user, info, watchlist }),
      ...options,
    })
    const { connection } = this.pusher
    connection.bind('message', (frame) => this.frames.push(frame))
    connection.bind('error', (error) => this.errors.push(told(error)))
    connection.bind('state_change', ({ current }) => this.states.push(current))
  }

  get state() {
    return this.pusher.connection.state
  }

  get socketId() {
    return this.pusher.connection.socket_id
  }

  async connected() {
    await until('pusher-js connects', () => this.state === 'connected')
    return this
  }

  /** Subscribes, and waits until it is confirmed. */
  async subscribed(name) {
    const channel = this.pusher.subscribe(name)
    await until(`a subscription to ${name}`, () => channel.subscribed)
    return channel
  }

  async signedIn() {
    this.pusher.signin()
    await until('signed in, with a channel of its own', () =>
      this.pusher.user.user_data && this.pusher.user.serverToUserChannel?.subscribed)
    return this
  }

  /** Frames with this event (in this channel). */
  got(event, channel) {
    return this.frames.filter((frame) => frame.event === event && (!channel || frame.channel === channel))
  }

  /** Waits for the first frame with this event (in this channel). */
  async gets(event, channel, limit) {
    await until(`${event}${channel ? ` in ${channel}` : ''} arrives`, () => this.got(event, channel).length > 0, limit)
    return this.got(event, channel)[0]
  }

  /** Events of a channel as (event, data), without what the protocol itself says. */
  events(channel) {
    return this.frames
      .filter((frame) => frame.channel === channel && !frame.event.startsWith('pusher'))
      .map(({ event, data }) => [event, data])
  }

  say(event, data, channel) {
    this.pusher.connection.send_event(event, data, channel)
  }

  story() {
    const shown = this.frames.slice(-12).map((frame) => JSON.stringify(frame).slice(0, 300))
    return [`${this.app} at ${this.at.name}, ${this.state}`, ...shown, ...this.errors.map((error) => `error ${show(error)}`)].join('\n')
  }

  close() {
    this.pusher.disconnect()
  }
}

/** What pusher-js says of an error: the server's own words, if they are any. */
function told(error) {
  const data = error?.error?.data ?? error?.data
  return data?.code ? { code: data.code, message: data.message } : { message: data?.message ?? error?.type, code: null }
}

/** All clients have heard everything that was sent to this channel before. */
export async function fence(server, channel, clients) {
  const mark = `fence-${Math.random().toString(36).slice(2)}`
  await server.trigger(channel, mark, {})
  for (const client of clients) await client.gets(mark, channel)
}
