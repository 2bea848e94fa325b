// Orders: typed, shown once more, and confirmed by a word or the cluster's name.
import { html, post, useEffect, useRef, useState } from '/base.js'
import { Field, Note } from '/parts.js'
import { counted } from '/words.js'

const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('')

/** What a receipt says. */
function Done({ receipt, done }) {
  const drops = Object.entries(receipt.drops ?? {})
  const coverage = receipt.coverage ?? {}
  return html`<${Note} tone=${coverage.complete ? 'good' : 'bad'}>${done} ${counted(receipt.clients, 'client')} on ${counted(receipt.gateways, 'gateway')}.
    ${drops.map(([why, clients]) => ` Not served: ${counted(clients, 'client')}, ${why}.`)}
    ${receipt.unknown_clients?.length ? ` Not connected: ${receipt.unknown_clients.join(', ')}.` : ''}
    ${!coverage.complete ? ` No answer from ${(coverage.missing ?? []).join(', ')}: some may be missed. The same order may be given again, and reaches nobody twice.` : ''}<//>`
}

const TROUBLE = /NO ANSWER|UNREACHABLE|NOT SYNCED|OUTSIDE|PARKED|missing |earlier version/

/** The way of a message, as `broadgate send --trace` prints it. */
export function Steps({ steps }) {
  return html`<div class="steps"><h3>Its way through the cluster</h3>
    <ol>${steps.map((step, n) => html`<li key=${n} class=${`${step.is_own_time ? 'own' : ''} ${TROUBLE.test(step.what) ? 'trouble' : ''}`}><span class="at soft">${step.at}</span><span class="wrap">${step.what}</span></li>`)}</ol>
    <p class="soft">Times count from the gateway that took it; indented ones from the gateway of the line.</p></div>`
}

/** A button that opens the order. `to` names whom: {client}, {uid} or {group}; without it, the form asks. What is typed
 *  stays if they are `gone` meanwhile. */
export function Order({ kind, label, app, to, me, event, gone }) {
  const [open, setOpen] = useState(false)
  // The gateways would refuse it.
  if (me.role === 'reader') return null
  return html`${!gone && html`<button type="button" class=${kind === 'close' ? 'danger' : ''} onClick=${() => setOpen(true)}>${label}</button>`}
    ${open && html`<${Form} kind=${kind} app=${app} to=${to} me=${me} event=${event} close=${() => setOpen(false)} />`}`
}

/** Orders beside each other; nothing where there is none. */
export const Orders = ({ children }) => html`<div class="row orders">${children}</div>`

function Form({ kind, app, to, me, event: named, close }) {
  const dialog = useRef(null)
  const id = useRef(newId())
  const [outcome, setOutcome] = useState(null)
  const [busy, setBusy] = useState(false)
  const word = me.protected ? me.cluster : kind
  const sends = kind === 'send'
  useEffect(() => { dialog.current.showModal() }, [])
  // On a phone the form is longer than the screen.
  useEffect(() => { if (outcome) dialog.current.querySelector('.outcome')?.scrollIntoView({ block: 'nearest' }) }, [outcome])
  const submit = async (happened) => {
    happened.preventDefault()
    const form = Object.fromEntries(new FormData(happened.target))
    setBusy(true)
    const whom = to ?? { [form.kind]: form.name.trim() }
    const what = sends ? { event: form.event?.trim() ?? '', text: form.text } : { code: Number(form.code), reason: form.reason }
    if (sends) what.trace = form.trace === 'on'
    try {
      const receipt = await post('/order', { id: id.current, confirm: form.confirm.trim(), note: form.note.trim(), order: { [kind]: { app, to: whom, ...what } } })
      setOutcome({ receipt })
    } catch (failed) {
      setOutcome({ error: failed.message })
    }
    setBusy(false)
  }
  const [of, name] = to ? Object.entries(to)[0] : []
  const done = outcome?.receipt?.coverage?.complete
  return html`<dialog ref=${dialog} onClose=${close} aria-labelledby="order">
    <form onSubmit=${submit}>
      <h2 id="order">${sends ? 'Send a message' : 'Disconnect'}</h2>
      <p>${to ? html`To ${of} <b>${name}</b> of app` : 'In app'} <b>${app || 'default'}</b>${me.cluster ? html` in <b>${me.cluster}</b>` : ''}</p>
      ${!to && html`<div class="row"><${Field} label="To a"><select name="kind"><option value="group">group (channel)</option><option value="uid">uid</option><option value="client">client id</option></select><//>
        <${Field} label="Name"><input name="name" required autocomplete="off" /><//></div>`}
      ${sends && html`<${Field} label="Event, for Pusher and Echo; empty for a plain text"><input name="event" autocomplete="off" defaultValue=${named ?? ''} /><//>
        <${Field} label="Message"><textarea name="text" rows="4" required></textarea><//>
        <label class="check"><input name="trace" type="checkbox" defaultChecked=${true} /> show its way through the cluster</label>`}
      ${!sends && html`<div class="row"><${Field} label="Close code"><input name="code" type="number" min="1000" max="4999" defaultValue="4000" required /><//>
        <${Field} label="Reason, which the client sees"><input name="reason" maxlength="123" autocomplete="off" /><//></div>`}
      ${outcome && html`<div class="outcome">${outcome.error && html`<${Note}>${outcome.error}<//>`}
      ${outcome.receipt && html`<${Done} receipt=${outcome.receipt} done=${sends ? 'Sent to' : 'Closed'} />`}
      ${outcome.receipt?.steps && html`<${Steps} steps=${outcome.receipt.steps} />`}</div>`}
      ${!done && html`<${Field} label="Note: why, for the audit"><input name="note" maxlength="256" autocomplete="off" placeholder="such as a ticket's number" /><//>`}
      ${!done && html`<${Field} label=${html`Type <b>${word}</b> to confirm`}><input name="confirm" autocomplete="off" autocapitalize="off" spellcheck=${false} required /><//>`}
      <div class="row end"><button type="button" class="plain" onClick=${() => dialog.current.close()}>${done ? 'Close this' : 'Cancel'}</button>
        ${!done && html`<button class=${sends ? '' : 'danger'} disabled=${busy}>${sends ? (busy ? 'Sending…' : 'Send') : busy ? 'Disconnecting…' : 'Disconnect'}</button>`}</div>
    </form>
  </dialog>`
}
