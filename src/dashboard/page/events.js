// What has happened: connections that ended, and what was refused.
import { go, html } from '/base.js'
import { cause, clock, count, counted, gateways, seesAll, workers } from '/words.js'
import { Field, Table, asking } from '/parts.js'
import { Missing, endColumns } from '/clients.js'

export const refusalColumns = [
  { label: 'Last', fit: true, cell: (one) => html`<span class="time">${clock(one.last_at_ms)}</span>` },
  { label: 'Reason', cell: (one) => html`<b>${one.reason}</b>${one.count > 1 && html` <span class="soft">${counted(one.count, 'time')}</span>`}` },
  { label: 'Why', cell: (one) => html`<span class="wrap">${one.why}</span>` },
  { label: 'From', fit: true, cell: (one) => one.address || '?' },
  { label: 'App', cell: (one) => one.app || '?' },
  { label: 'At', cell: (one) => html`${one.gateway} <code class="wrap">${one.path}</code>` },
]

/** How many ended of which cause. */
function Causes({ ended }) {
  const counts = new Map()
  for (const end of ended) counts.set(end.cause, (counts.get(end.cause) ?? 0) + 1)
  const all = [...counts].sort((a, b) => b[1] - a[1])
  if (!all.length) return null
  return html`<p class="chips" aria-label="By cause">${all.map(([name, many]) => html`<span class="chip" key=${name}>${cause(name)} <b>${count(many)}</b></span>`)}</p>`
}

const OTHERS = [
  { label: 'When', fit: true, pair: true, cell: (one) => html`<span class="time">${clock(one.at_ms)}</span>` },
  { label: 'Kind', fit: true, pair: true, cell: (one) => one.kind },
  { label: 'What', cell: (one) => html`<span class="wrap">${one.text || one.what}</span>` },
  { label: 'Seen by', fit: true, cell: (one) => one.gateway },
]

const MEMBERS = [
  { label: 'Since', fit: true, cell: (one) => html`<span class="time">${clock(one.since_ms)}</span>` },
  { label: 'Member', cell: (one) => html`<b>${one.name}</b>` },
  { label: 'What', cell: (one) => `${one.role} joined, now ${one.state}` },
]

export function Events({ head, body, query }) {
  const submit = (event) => {
    event.preventDefault()
    const form = Object.fromEntries(new FormData(event.target))
    go('events', { only: form.app.trim(), address: form.address.trim(), uid: form.uid.trim() })
  }
  const members = [
    ...gateways(head.status).map((one) => ({ name: one.name, role: 'gateway', state: one.state, since_ms: one.member.since_ms })),
    ...workers(head.status).filter((one) => one.since_ms).map((one) => ({ name: one.name, role: 'worker', state: one.state, since_ms: one.since_ms })),
  ].sort((a, b) => b.since_ms - a.since_ms)
  const memories = body?.memories ?? []
  const since = memories.length ? `remembered since ${clock(Math.min(...memories.map((one) => one.own_since_ms || Date.now())))}` : ''
  return html`<h1>Events</h1>
    <form class="search" role="search" onSubmit=${submit} key=${JSON.stringify(query)}>
      <${Field} label="App, or all"><input name="app" autocomplete="off" spellcheck=${false} defaultValue=${query.only ?? ''} /><//>
      <${Field} label="Address or network"><input name="address" autocomplete="off" spellcheck=${false} placeholder="10.1.7.0/24" defaultValue=${query.address ?? ''} /><//>
      <${Field} label="Uid"><input name="uid" autocomplete="off" spellcheck=${false} defaultValue=${query.uid ?? ''} /><//><button>Show</button></form>
    <${Missing} coverage=${body?.coverage} />
    ${body && html`<${Causes} ended=${body.ended} />`}
    <${Table} caption="Ended connections" note=${body ? `${count(body.ended.length)} of ${count(body.ended_total)}, ${since}` : ''} columns=${endColumns} rows=${body?.ended ?? []} keyOf=${(end) => `${end.client_id}${end.ended_at_ms}`} empty=${body ? 'None, as far as remembered.' : asking()} />
    <${Table} caption="Refused" note=${body ? `${count(body.refused_total)} in all` : ''} columns=${refusalColumns} rows=${body?.refused ?? []} empty=${body ? 'Nothing was refused, as far as remembered.' : asking()} />
    ${body?.others && html`<${Table} caption="Members, settings, alarms, orders" columns=${OTHERS} rows=${[...body.others.events].reverse()} keyOf=${(one) => `${one.gateway}${one.number}`} empty="Nothing is remembered." />`}
    ${!head.limited && html`<${Table} caption="Members" columns=${MEMBERS} rows=${members} keyOf=${(one) => one.name} />`}`
}
Events.what = (query, me) => ({ page: 'events', app: query.only || (seesAll(me) ? '' : query.app), address: query.address ?? '', uid: query.uid ?? '' })
