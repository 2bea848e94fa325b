// The stream: what the page shows goes up; pictures of the cluster and of the page come down.
import { rates } from '/rates.js'

const AGAIN_MS = [250, 500, 1000, 2000, 4000]
const LOGGED_OUT = 4401
// Nobody has looked at the page for some minutes.
const UNSEEN = 4402
// Longer than the server tries for an answer.
const SILENCE_MS = 30_000
// The stream takes no more at once; no name is nearly as long.
const SAID_BYTES_MAX = 64 * 1024
// Closed for what the page has said: it must not say it again.
const REFUSED = [1008, 1009]

class Live {
  constructor() {
    this.state = 'connecting' // open, lost, asleep, out
    this.why = ''
    this.number = 0
    this.what = null
    this.head = null // of the last answer, at headAt
    this.headError = ''
    this.headAt = 0
    this.snapshot = null // of what is shown now, at takenAt
    this.takenAt = 0
    this.bodyError = ''
    this.heardAt = 0
    this.paused = false
    this.failures = 0
    this.listeners = new Set()
    document.addEventListener('visibilitychange', () => {
      this.heardAt = performance.now()
      this.hide()
      this.wake()
    })
    setInterval(() => this.guard(), 5000)
  }

  /** Calls back at every change. */
  watch(listener) {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  changed() {
    for (const listener of this.listeners) listener()
  }

  start() {
    if (this.socket) return
    this.state = 'connecting'
    const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/live`)
    this.socket = socket
    socket.onopen = () => {
      this.state = 'open'
      this.why = ''
      this.heardAt = performance.now()
      this.ask()
      if (this.tapped) this.say(this.tapped.say)
      this.hide()
      this.changed()
    }
    socket.onmessage = ({ data }) => this.take(JSON.parse(data))
    socket.onclose = ({ code, reason }) => this.closed(code, reason)
  }

  /** Opens the stream that was closed because nobody looked. */
  wake() {
    if (this.state !== 'asleep' || document.hidden || this.paused) return
    this.start()
    this.changed()
  }

  stop() {
    clearTimeout(this.timer)
    const socket = this.socket
    this.socket = null
    if (!socket) return
    socket.onclose = socket.onmessage = socket.onopen = null
    socket.close()
  }

  async closed(code, reason) {
    this.socket = null
    if (code === UNSEEN) {
      this.state = 'asleep'
      this.changed()
      return this.wake()
    }
    this.failures += 1
    this.state = code === LOGGED_OUT ? 'out' : 'lost'
    this.why = reason
    if (REFUSED.includes(code)) {
      this.refused = JSON.stringify(this.what)
      this.tapped = null
    }
    this.changed()
    if (this.state === 'out') return
    // A handshake that is refused looks like a lost connection: only a request says which it was.
    const me = await fetch('/me').then((answer) => answer.json()).catch(() => null)
    if (me && !me.logged_in) {
      this.state = 'out'
      return this.changed()
    }
    const wait = AGAIN_MS[Math.min(this.failures, AGAIN_MS.length) - 1]
    this.timer = setTimeout(() => this.start(), wait * (0.75 + Math.random() / 2))
  }

  say(what) {
    const text = JSON.stringify(what)
    if (new TextEncoder().encode(text).length > SAID_BYTES_MAX) return false
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(text)
    return true
  }

  /** Asks for what is shown, unless the stream would not take it. */
  ask() {
    if (!this.what) return
    const taken = JSON.stringify(this.what) !== this.refused && this.say({ show: { number: this.number, what: this.what } })
    if (!taken) this.bodyError = 'The address of this page names something that is longer than any name can be'
  }

  /** What is shown from now on. */
  show(what) {
    if (JSON.stringify(what) === JSON.stringify(this.what)) return
    this.what = what
    this.number += 1
    this.snapshot = null
    this.bodyError = ''
    this.ask()
    this.changed()
  }

  /** Watches something until the returned function is called. */
  tap(of, take) {
    this.tapNumber = (this.tapNumber ?? 0) + 1
    const number = this.tapNumber
    this.tapped = { say: { tap: { number, ...of } }, number, take }
    if (!this.say(this.tapped.say)) this.tapped = null
    return () => {
      if (this.tapped?.number !== number) return
      this.tapped = null
      this.say('untap')
    }
  }

  hide() {
    this.say({ hidden: document.hidden || this.paused })
  }

  pause(paused) {
    this.paused = paused
    this.heardAt = performance.now()
    this.hide()
    this.wake()
    this.changed()
  }

  take(picture) {
    this.failures = 0
    const at = performance.now()
    this.heardAt = at
    if (picture.tap) {
      if (picture.tap === this.tapped?.number) this.tapped.take(picture)
      return this.say('tap_drawn')
    }
    if (picture.head?.ok) {
      this.head = picture.head.ok
      this.headAt = at - picture.took_ms
      this.headError = ''
      rates.take(this.head.status, at)
    } else if (picture.head) {
      this.headError = picture.head.error
    } else if (picture.number === this.number) {
      // What could not be asked leaves the older picture, and says so.
      const failed = picture.body.error && !picture.body.is_missing
      this.bodyError = picture.body.error ?? ''
      if (!failed || !this.snapshot) {
        this.snapshot = picture
        this.takenAt = at - picture.took_ms
      }
    }
    this.changed()
    this.say('drawn')
  }

  /** A connection that only seems to be there is opened again. */
  guard() {
    const waits = this.state === 'open' && !this.paused && !document.hidden && performance.now() - this.heardAt > SILENCE_MS
    if (waits) {
      this.stop()
      this.closed(1006, '')
    }
  }
}

export const live = new Live()
