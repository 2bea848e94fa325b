// Clients: found by what they are called or by what holds them up; and one of them.
import { go, html, link, useRef, useState } from '/base.js'
import { age, bytes, clock, count, counted } from '/words.js'
import { AppChoice, ClientLink, Facts, Field, NextPage, Note, Panel, Table, asking } from '/parts.js'
import { Order, Orders } from '/orders.js'
import { Tap } from '/tap.js'

const BY = { all: 'all', uid: 'with the uid', group: 'in the group', id: 'with the id', address: 'with the address', ended: 'ended, by address', slow: 'that do not read', held: 'that wait for a worker', paused: 'that wait for an answer' }
const NAMED = ['uid', 'group', 'id', 'address', 'ended']
// Those that are found on other pages.
const ELSEWHERE = ['id', 'ended']

function Search({ query, apps }) {
  const [by, setBy] = useState(Object.hasOwn(BY, query.by ?? '') ? query.by : 'all')
  const submit = (event) => {
    event.preventDefault()
    const form = Object.fromEntries(new FormData(event.target))
    const value = form.value?.trim() ?? ''
    if (by === 'id' && value) go('client', { app: form.app, id: value })
    else if (by === 'ended') go('events', { address: value })
    else go('clients', { app: form.app, by, value })
  }
  return html`<form class="search" role="search" onSubmit=${submit}>
    <${AppChoice} app=${query.app} apps=${apps} />
    <${Field} label="Clients"><select name="by" value=${by} onChange=${(event) => setBy(event.target.value)}>${Object.entries(BY).map(([key, name]) => html`<option value=${key} selected=${key === by}>${name}</option>`)}</select><//>
    ${NAMED.includes(by) && html`<${Field} label=${['address', 'ended'].includes(by) ? 'Address or network' : 'Name'}><input name="value" placeholder=${['address', 'ended'].includes(by) ? '10.1.7.0/24' : null} required autocomplete="off" spellcheck=${false} defaultValue=${query.value ?? ''} /><//>`}
    <button>Show</button></form>`
}

const since = (ms) => age(Date.now() - ms)

const COLUMNS = [
  { label: 'Client', cell: (one) => html`<${ClientLink} app=${one.app} id=${one.client_id} />` },
  { label: 'Uid', cell: (one) => one.uid && html`<span class="wrap">${one.uid}</span>` },
  { label: 'Gateway', cell: (one) => one.gateway },
  { label: 'Address', cell: (one) => one.address },
  { label: 'For', num: true, cell: (one) => since(one.opened_at_ms) },
  { label: 'In', num: true, cell: (one) => count(one.messages_in) },
  { label: 'Out', num: true, cell: (one) => count(one.messages_out) },
  { label: 'Outbox', num: true, cell: (one) => (one.outbox_bytes ? bytes(one.outbox_bytes) : '0') },
]

export const clientColumns = COLUMNS

/** Gateways that a list lacks. */
export const Missing = ({ coverage }) => coverage && !coverage.complete && html`<${Note}>No answer from ${(coverage.missing ?? []).join(', ')}: theirs are missing here.<//>`

/** That an app has none, and where there may be some. */
function None({ by, query, apps }) {
  const app = query.app || 'default'
  const others = apps.filter((id) => id !== app).slice(0, 8)
  return html`<span>${by === 'all' ? `No client of app ${app} is connected.` : 'No such client is connected.'}
    ${others.length > 0 && html` Other apps:${others.map((id) => html` <a key=${id} href=${link('clients', { app: id })}>${id}</a>`)}`}</span>`
}

export function Clients({ head, body, query }) {
  const by = Object.hasOwn(BY, query.by ?? '') ? query.by : 'all'
  return html`<h1>Clients</h1>
    <${Search} key=${JSON.stringify(query)} query=${query} apps=${head.apps} />
    <${Missing} coverage=${body?.coverage} />
    <${Table} caption=${`Clients ${by === 'all' ? '' : BY[by]} ${query.value ?? ''}`.trim()} note=${body ? `${counted(body.clients.length, 'row')} of app ${query.app || 'default'}` : ''}
      columns=${COLUMNS} rows=${body?.clients ?? []} keyOf=${(one) => one.client_id} empty=${body ? html`<${None} by=${by} query=${query} apps=${head.apps} />` : asking()}
      more=${html`${by === 'address' && query.value && html`<p class="pages"><a href=${link('events', { address: query.value })}>Those that have ended, and what was refused</a></p>`}<${NextPage} to=${body?.next_cursor && link('clients', { ...query, cursor: body.next_cursor })} from=${query.cursor && link('clients', { ...query, cursor: '' })} />`} />`
}
Clients.what = (query) => ({ page: 'clients', app: query.app, by: Object.hasOwn(BY, query.by ?? '') && !ELSEWHERE.includes(query.by) ? query.by : 'all', value: query.value ?? '', cursor: query.cursor ?? '' })

/** Why connections have ended. */
export const endColumns = [
  { label: 'When', fit: true, cell: (end) => html`<span class="time">${clock(end.ended_at_ms)}</span>` },
  { label: 'Client', cell: (end) => html`<${ClientLink} app=${end.app} id=${end.client_id} />${end.uid && html`<div class="wrap">uid ${end.uid}</div>`}` },
  { label: 'What', fit: true, cell: (end) => html`<b>${end.why.title}</b>` },
  { label: 'Why', cell: (end) => html`<span class="wrap">${end.why.because}${end.reason && !end.why.because.includes(end.reason) ? `: ${end.reason}` : ''}</span>${end.why.do && html`<div class="soft">do: ${end.why.do}</div>`}` },
  { label: 'Where', cell: (end) => html`${end.gateway}, <span class="wrap">${end.address}</span>` },
]

function facts(client) {
  const session = client.session?.version ? `set, version ${client.session.version}; not shown here` : 'never set'
  return html`<${Facts} rows=${[
    ['app', html`<a href=${link('app', { app: client.app })}>${client.app}</a>`],
    ['uid', client.uid || 'none'],
    ['gateway', `${client.gateway}, listener ${client.listener} (${client.protocol})`],
    ['address', html`<a href=${link('clients', { app: client.app, by: 'address', value: client.address.replace(/:\d+$/, '').replace(/^\[|\]$/g, '') })}>${client.address}</a>`],
    ['connected for', since(client.opened_at_ms)],
    ['in', `${counted(client.messages_in, 'message')}, ${bytes(client.bytes_in)}`],
    ['out', `${counted(client.messages_out, 'message')}, ${bytes(client.bytes_out)}`],
    ['outbox', client.outbox_messages ? `${counted(client.outbox_messages, 'message')}, ${bytes(client.outbox_bytes)}` : 'empty'],
    ['worker', `${client.worker || 'none'}, ${counted(client.events_unanswered, 'event')} unanswered`],
    ['session', session],
    ['groups', client.groups.length ? html`<span class="chips">${client.groups.slice(0, 50).map((group) => html`<a class="chip" href=${link('group', { app: client.app, group })}>${group}</a>`)}${client.groups.length > 50 && ` and ${client.groups.length - 50} more`}</span>` : 'none'],
  ]} />`
}

/** The client as it is, and what may be done with it. An order that is being typed stays when the client goes. */
function Now({ body, query, me }) {
  const seen = useRef(false)
  const client = body?.client
  if (client) seen.current = true
  const to = { client: query.id }
  const remembered = body?.ends.ended.length > 0
  return html`<${Panel} title="Now">
    ${client && facts(client)}
    ${body && !client && html`<p class="none">It is not connected${remembered ? '' : ', and nothing is remembered of it'}.</p>`}
    ${!body && html`<p class="soft">${asking()}</p>`}
    ${seen.current && html`<${Orders}><${Order} kind="send" label="Send…" app=${query.app} to=${to} me=${me} gone=${!client} />
      <${Order} kind="close" label="Disconnect…" app=${query.app} to=${to} me=${me} gone=${!client} /><//>`}<//>`
}

export function Client({ body, query, me }) {
  const client = body?.client
  const memories = body?.ends.memories ?? []
  return html`<p class="path"><a href=${link('clients', { app: query.app })}>Clients</a></p>
    <h1>Client <code>${query.id}</code></h1>
    <${Now} key=${`now ${query.id}`} body=${body} query=${query} me=${me} />
    ${query.id && html`<${Tap} me=${me} key=${query.id} app=${query.app} whom=${{ client: query.id }} />`}
    ${body && (client?.uid || !client) && html`<${Table} caption=${client?.uid ? `Earlier ends of uid ${client.uid}` : 'How it ended'} columns=${endColumns} rows=${body.ends.ended} keyOf=${(end) => `${end.client_id}${end.ended_at_ms}`}
      empty=${`Nothing is remembered${memories.length ? ` since ${clock(Math.min(...memories.map((one) => one.own_since_ms)))}` : ''}.`} />`}`
}
Client.what = (query) => ({ page: 'client', app: query.app, id: query.id ?? '' })
