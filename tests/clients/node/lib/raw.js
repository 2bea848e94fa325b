// A WebSocket without any library of the protocol: for what libraries do not say.
import WebSocket from 'ws'
import { keyOf } from './cluster.js'
import { until } from './wait.js'

export class Raw {
  frames = []
  closed = null

  /** Opens, and waits for the first frame, whichever it is. */
  static async open({ at, app = 'shop', key = keyOf(app), query = '?protocol=7&client=raw&version=1', ...options }) {
    const raw = new Raw()
    raw.at = at
    raw.socket = new WebSocket(`ws://127.0.0.1:${at.port}/app/${key}${query}`, options)
    raw.socket.on('message', (bytes, isBinary) => raw.frames.push(isBinary ? bytes : JSON.parse(bytes.toString())))
    raw.socket.on('close', (code, reason) => { raw.closed = { code, reason: reason.toString() } })
    raw.socket.on('error', (error) => { raw.error = error })
    await until('a first frame', () => raw.frames.length > 0 || raw.closed || raw.error)
    const [first] = raw.frames
    if (first?.event === 'pusher:connection_established') raw.socketId = JSON.parse(first.data).socket_id
    return raw
  }

  say(event, data, channel) {
    this.send(JSON.stringify({ event, data, ...(channel !== undefined && { channel }) }))
  }

  send(text) {
    this.socket.send(text)
  }

  got(event, channel) {
    return this.frames.filter((frame) => frame.event === event && (!channel || frame.channel === channel))
  }

  async gets(event, channel, count = 1) {
    await until(`${count} ${event} arrives`, () => this.got(event, channel).length >= count)
    return this.got(event, channel)[count - 1]
  }

  /** Everything sent before has been answered. */
  async settled() {
    const pongs = this.got('pusher:pong').length
    this.say('pusher:ping', {})
    await this.gets('pusher:pong', undefined, pongs + 1)
  }

  story() {
    return [`raw at ${this.at.name}`, ...this.frames.slice(-12).map((frame) => JSON.stringify(frame)?.slice(0, 300)),
      this.closed && `closed ${JSON.stringify(this.closed)}`, this.error && String(this.error)].filter(Boolean).join('\n')
  }

  close() {
    this.socket.terminate()
  }
}
