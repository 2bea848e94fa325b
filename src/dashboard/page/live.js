// The stream: what the page shows goes up, snapshots of it come down.
import { rates } from '/rates.js'

const AGAIN_MS = [250, 500, 1000, 2000, 4000]
const LOGGED_OUT = 4401

class Live {
  constructor() {
    this.state = 'connecting' // open, lost, out
    this.why = ''
    this.number = 0
    this.what = null
    this.head = null // of the last answer, at headAt
    this.headError = ''
    this.headAt = 0
    this.snapshot = null // of what is shown now, at takenAt
    this.takenAt = 0
    this.paused = false
    this.failures = 0
    this.listeners = new Set()
    document.addEventListener('visibilitychange', () => this.hide())
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
      if (this.what) this.say({ show: { number: this.number, what: this.what } })
      this.hide()
      this.changed()
    }
    socket.onmessage = ({ data }) => this.take(JSON.parse(data))
    socket.onclose = ({ code, reason }) => this.closed(code, reason)
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
    this.failures += 1
    this.state = code === LOGGED_OUT ? 'out' : 'lost'
    this.why = reason
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
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(what))
  }

  /** What is shown from now on. */
  show(what) {
    if (JSON.stringify(what) === JSON.stringify(this.what)) return
    this.what = what
    this.number += 1
    this.snapshot = null
    this.say({ show: { number: this.number, what } })
    this.changed()
  }

  /** Asks again at once. */
  again() {
    this.number += 1
    this.say({ show: { number: this.number, what: this.what } })
  }

  hide() {
    this.say({ hidden: document.hidden || this.paused })
  }

  pause(paused) {
    this.paused = paused
    this.hide()
    this.changed()
  }

  take(snapshot) {
    this.failures = 0
    const at = performance.now()
    if (snapshot.head.ok) {
      this.head = snapshot.head.ok
      this.headAt = at - snapshot.took_ms
      this.headError = ''
      rates.take(this.head.status, at)
    } else {
      this.headError = snapshot.head.error
    }
    if (snapshot.number === this.number) {
      // What could not be asked leaves the older picture, with its age.
      const failed = snapshot.body.error && !snapshot.body.is_missing
      if (!failed || !this.snapshot?.body.ok) {
        this.snapshot = snapshot
        this.takenAt = at - snapshot.took_ms
      }
      this.bodyError = snapshot.body.error ?? ''
    }
    this.changed()
    this.say('drawn')
  }
}

export const live = new Live()
