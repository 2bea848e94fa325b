// What is happening now: the lines of a tap.
import { Component, html, useEffect, useRef, useState } from '/base.js'
import { live } from '/live.js'
import { bytes, counted, short } from '/words.js'
import { ClientLink, Field, Note } from '/parts.js'

const LINES_MAX = 500
const KINDS = ['opened', 'in', 'event', 'answered', 'placed', 'written', 'held', 'dropped', 'joined', 'left', 'bound', 'subscribing', 'ping', 'closed']

const kindOf = (event) => event.kind.replace('TAP_KIND_', '').toLowerCase()

/** An event in words. */
export function told(event) {
  const by = event.caller ? ` by ${event.caller}` : ''
  switch (kindOf(event)) {
    case 'opened': return `on ${event.place}, from ${event.reason}`
    case 'in': return `${bytes(event.bytes)}, ${event.count} of ${event.max} before it unanswered`
    case 'event': return `${event.reason} to ${event.place}, number ${event.count}`
    case 'answered': return `by ${event.place}, number ${event.count}${event.took_us ? `, after ${(event.took_us / 1000).toFixed(1)} ms` : ''}`
    case 'placed': return `${event.place} ${bytes(event.bytes)}${by}${event.client_id ? `, outbox ${event.count}` : `, to ${counted(event.count, 'client')}`}`
    case 'written': return `${bytes(event.bytes)}, ${counted(event.count, 'message')}; ${bytes(event.outbox_bytes)} wait`
    case 'held': return `${bytes(event.outbox_bytes)} wait: the client does not read`
    case 'dropped': return `${event.reason}${event.place ? `, ${event.place}` : ''}`
    case 'joined': case 'left': case 'subscribing': return event.place
    case 'bound': return event.place || 'to no uid'
    case 'ping': return 'it was silent'
    case 'closed': return `${event.code} ${event.reason}${event.count ? `, ${counted(event.count, 'message')} unsent` : ''}`
    default: return event.reason
  }
}

const time = (ms) => new Date(ms).toISOString().slice(11, 23)

/** The lines of a batch, and of what is missing between them. */
export function linesOf(parts, next) {
  return parts.flatMap((part) => [
    ...(part.missed > 0 ? [{ key: next(), gateway: part.gateway, kind: 'missed', words: `${counted(part.missed, 'event')} not shown: too many came` }] : []),
    ...part.events.map((event) => ({ key: next(), at: event.at_ms, gateway: part.gateway, id: event.client_id, kind: kindOf(event), words: told(event), text: event.text })),
    ...(part.unreachable ? [{ key: next(), gateway: part.gateway, kind: 'missed', words: part.unreachable }] : []),
  ])
}

/** A line, drawn once: of hundreds that stay, none is looked at again with the next batch. */
class Line extends Component {
  shouldComponentUpdate({ line }) {
    return line !== this.props.line
  }

  render({ line, app }) {
    return html`<div class=${`line ${line.kind}`}><span class="soft time">${line.at ? time(line.at) : ''}</span> <span class="soft">${line.gateway}</span>
      ${line.id ? html` <${ClientLink} app=${app} id=${line.id}>${short(line.id)}<//>` : ''} <b>${line.kind}</b> <span class="wrap">${line.words}</span>${line.text ? html` <code class="wrap">${line.text}</code>` : ''}</div>`
  }
}

/** `whom` as the stream takes it: {client}, {uid}, {group} or "whole_app". */
export function Tap({ me, app, whom, kinds }) {
  const [on, setOn] = useState(false)
  const [payload, setPayload] = useState(false)
  const [only, setOnly] = useState('')
  const [lines, setLines] = useState([])
  const [end, setEnd] = useState('')
  // What is on its way when it is stopped is not shown any more.
  const wanted = useRef(false)
  const turn = () => {
    wanted.current = !on
    if (!on) setLines([])
    setOn(!on)
  }
  useEffect(() => {
    wanted.current = on
    if (!on) return
    let number = 0
    setEnd('')
    return live.tap({ app, whom, payload }, (batch) => {
      if (!wanted.current) return
      const fresh = linesOf(batch.parts, () => { number += 1; return number })
      if (fresh.length) setLines((old) => [...fresh.reverse(), ...old].slice(0, LINES_MAX))
      if (batch.end) {
        setEnd(batch.end)
        setOn(false)
      }
    })
  }, [on, payload, app, JSON.stringify(whom)])
  const shown = lines.filter((line) => !only || line.kind === only || line.kind === 'missed')
  return html`<section class="panel"><h2>Live</h2>
    <div class="row tapping"><button type="button" aria-pressed=${on} onClick=${turn}>${on ? 'Stop' : 'Watch'}</button>
      <${Field} label="Show"><select value=${only} onChange=${(event) => setOnly(event.target.value)}><option value="">everything</option>${(kinds ?? KINDS).map((kind) => html`<option value=${kind}>${kind}</option>`)}</select><//>
      ${me.sees_payloads ? html`<label class="check"><input type="checkbox" checked=${payload} onChange=${(event) => setPayload(event.target.checked)} /> what messages say</label>` : html`<span class="check">what messages say is not shown to you</span>`}</div>
    ${end && html`<${Note} tone="warn">${end}<//>`}
    ${(on || lines.length > 0) && html`<div class="tap" tabindex="0" role="log" aria-live="off" aria-label="What happens, the newest first">
      ${!shown.length && html`<p class="soft">Nothing yet.</p>`}
      ${shown.map((line) => html`<${Line} key=${line.key} line=${line} app=${app} />`)}</div>`}
  </section>`
}
