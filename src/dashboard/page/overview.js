// The cluster at one glance.
import { html, link, useRef } from '/base.js'
import { age, bytes, clock, count, counted, gateways, held, rate, seesAll, short, totals, troubles, workers } from '/words.js'
import { rates } from '/rates.js'
import { Chart, ClientLink, Meter, Spark, State, Table, Tile, asking } from '/parts.js'

const of = (name) => (one) => ({ at: one.at, value: one[name] })

/** What needs attention, or that nothing does. */
function Health({ status }) {
  const all = troubles(status)
  const rows = gateways(status)
  if (!all.length) {
    return html`<p class="health good"><span class="dot" aria-hidden="true"></span><span><b>All is well.</b> ${counted(rows.length, 'gateway')} ${rows.length === 1 ? 'answers' : 'answer'}, the register is heard.</span></p>`
  }
  const bad = all.some((one) => one.level === 'bad')
  return html`<div class=${`health ${bad ? 'bad' : 'warn'}`}><span class="dot" aria-hidden="true"></span><div>
    <b>${counted(all.length, 'thing')} to look at</b>
    <ul>${all.slice(0, 6).map((one) => html`<li key=${one.what}>${one.what}</li>`)}</ul>
    <a href="#/doctor">${all.length > 6 ? `All ${all.length}, and what to do` : 'What to do'}</a></div></div>`
}

function Figures({ status }) {
  const sums = totals(status)
  const now = rates.all.at(-1)
  return html`<div class="tiles">
    <${Tile} label="Clients" value=${count(sums.clients)} note=${sums.clients_max ? `of ${count(sums.clients_max)} that fit` : ''} to="#/clients"><${Chart} values=${rates.all.map(of('clients'))} label="Clients" unit="" /><//>
    <${Tile} label="Messages in" value=${html`${rate(now?.in)}<small>/s</small>`}><${Chart} values=${rates.all.map(of('in'))} label="Messages in" /><//>
    <${Tile} label="Messages out" value=${html`${rate(now?.out)}<small>/s</small>`}><${Chart} values=${rates.all.map(of('out'))} label="Messages out" /><//>
    <div class="tile list"><div class="label">Clients that wait</div><dl>
      <div><dt><a href="#/clients?by=slow">do not read</a></dt><dd class=${sums.slow ? 'warn' : ''}>${count(sums.slow)}</dd></div>
      <div><dt><a href="#/clients?by=held">wait for a worker</a></dt><dd class=${sums.held ? 'bad' : ''}>${count(sums.held)}</dd></div>
      <div><dt><a href="#/clients?by=paused">wait for an answer</a></dt><dd>${count(sums.paused)}</dd></div>
      <div><dt>drops, last 2 min</dt><dd class=${sums.drops ? 'warn' : ''}>${count(sums.drops)}</dd></div>
      <div><dt>in outboxes</dt><dd>${bytes(sums.outbox)}</dd></div></dl></div>
  </div>`
}

/** The busiest of its threads that own clients. */
function busy(known) {
  const all = known && rates.now(known.incarnation)?.busy
  return all?.length ? `${Math.round(Math.max(...all) * 100)} %` : '?'
}

const GATEWAYS = [
  { label: 'Gateway', cell: ({ name }) => html`<b>${name}</b>` },
  { label: 'State', fit: true, cell: ({ state }) => html`<${State} word=${state} />` },
  { label: 'Clients', cell: ({ name, known }) => known ? html`<${Meter} value=${known.clients} max=${known.evidence?.clients_max} label=${`clients of ${name}`} />` : '?' },
  { label: 'In/s', num: true, cell: ({ known }) => rate(known && rates.now(known.incarnation)?.in) },
  { label: 'Out/s', num: true, cell: ({ known }) => rate(known && rates.now(known.incarnation)?.out) },
  { label: 'Out, lately', cell: ({ name, known }) => known ? html`<${Spark} values=${(rates.of.get(known.incarnation) ?? []).map(of('out'))} label=${`messages out of ${name}, the last minutes`} />` : '' },
  { label: 'Busy', num: true, cell: ({ known }) => busy(known) },
  { label: 'Slow', num: true, cell: ({ known }) => count(held(known)?.slow) },
  { label: 'Outboxes', num: true, cell: ({ known }) => bytes(held(known)?.outboxes_bytes) },
  { label: 'Up', num: true, cell: ({ known }) => known ? age(known.uptime_ms) : '?' },
]

const WORKERS = [
  { label: 'Worker', cell: ({ name }) => html`<b>${name}</b>` },
  { label: 'State', cell: ({ state }) => html`<${State} word=${state} />` },
  { label: 'Clients', num: true, cell: ({ known }) => count(known?.clients) },
  { label: 'Unanswered', num: true, cell: ({ known }) => count(known?.events_unanswered) },
]

const ENDS = [
  { label: 'When', fit: true, cell: (end) => clock(end.ended_at_ms) },
  { label: 'Client', cell: (end) => end.uid ? html`<a class="wrap" href=${link('client', { app: end.app, id: end.client_id })}>${end.uid}</a>` : html`<${ClientLink} app=${end.app} id=${end.client_id}>${short(end.client_id)}<//>` },
  { label: 'What', cell: (end) => end.why.title },
]

const LOUD = [
  { label: 'Group', cell: (one) => html`<span class="soft">${one.app}/</span><a class="wrap" href=${link('group', { app: one.app, group: one.group })}>${one.group}</a>` },
  { label: 'Home', cell: (one) => one.home || 'none' },
  { label: 'Members', num: true, cell: (one) => count(one.clients) },
  { label: 'Messages/s', num: true, cell: (one) => rate(one.messages_per_s) },
  { label: 'Copies/s', num: true, cell: (one) => rate(one.deliveries_per_s) },
  { label: 'Bytes/s', num: true, cell: (one) => bytes(Math.round(one.bytes_per_s)) },
]

const BUSY = [
  { label: 'Client', cell: (one) => html`<span class="soft">${one.app}/</span><a class="wrap" href=${link('client', { app: one.app, id: one.client_id })}>${one.uid || html`<code>${short(one.client_id)}</code>`}</a>` },
  { label: 'Gateway', cell: (one) => one.gateway },
  { label: 'In/s', num: true, cell: (one) => rate(one.messages_in_per_s) },
  { label: 'Out/s', num: true, cell: (one) => rate(one.messages_out_per_s) },
  { label: 'Bytes/s', num: true, cell: (one) => bytes(Math.round(one.bytes_out_per_s)) },
  { label: 'Outbox', num: true, cell: (one) => bytes(one.outbox_bytes) },
]

export const CALLERS = [
  { label: 'Caller', cell: (one) => html`<span class="wrap">${one.caller}</span>` },
  { label: 'Commands/s', num: true, cell: (one) => rate(one.commands_per_s) },
  { label: 'Bytes/s', num: true, cell: (one) => bytes(Math.round(one.bytes_per_s)) },
  { label: 'Refused', num: true, cell: (one) => count(one.refused) },
  { label: 'Last', num: true, cell: (one) => html`<span class="time">${clock(one.last_at_ms)}</span>` },
]

/** What is busiest of a kind: `part` is an answer of Observe.Top. */
export function Busiest({ caption, note, part, rows, columns, keyOf, empty }) {
  // What was measured last stays while the gateways are busy with the questions of others.
  const last = useRef(null)
  if (part && !part.busy) last.current = { part, rows }
  if (part?.busy) {
    const kept = last.current
    return html`<${Table} caption=${caption} note="the gateways are busy, asked again every few seconds" columns=${columns} rows=${kept?.rows ?? []} keyOf=${keyOf}
      empty=${kept ? empty : `Not measured yet: ${part.busy}.`} />`
  }
  const measuring = part && !part.why && part.measured_ms === 0
  const without = part?.coverage?.missing ?? []
  return html`<${Table} caption=${caption} note=${measuring ? 'rates are being measured' : without.length ? `without ${without.join(', ')}` : note} columns=${columns} rows=${rows ?? []} keyOf=${keyOf}
    empty=${part?.why ? `Not known: ${part.why}.` : part ? empty : asking()} />`
}

/** The first screen of those who may see some apps alone. */
function Limited({ head, app }) {
  return html`<h1>Overview of app ${app}</h1>
    ${head.apps.length > 1 && html`<p>Your token is for ${head.apps.map((id, n) => html`${n ? ', ' : ''}<a href=${link('overview', { app: id })} aria-current=${id === app ? 'true' : null}>${id}</a>`)}; the cluster as a whole is not shown to you.</p>`}
    ${head.apps.length === 1 && html`<p class="soft">Your token is for this app: the cluster as a whole is not shown to you.</p>`}`
}

export function Overview({ head, body, query }) {
  const { status } = head
  return html`${head.limited ? html`<${Limited} head=${head} app=${query.app} />` : html`<h1 class="hidden">Overview</h1>
    <${Health} status=${status} />
    <${Figures} status=${status} />
    <${Table} caption="Gateways" columns=${GATEWAYS.filter((one) => one.label !== 'Busy' || status.gateways.some((known) => known.counters))} rows=${gateways(status)} keyOf=${(one) => one.member.incarnation} />`}
    <div class="two" key=${query.app}><div>
      <${Busiest} caption="Loud groups" columns=${LOUD} part=${body?.groups} rows=${body?.groups.groups} keyOf=${(one) => `${one.app}/${one.group}`} empty="Nothing is sent to groups." />
      <${Busiest} caption="Callers" note="over the last 10 s" columns=${CALLERS} part=${body?.callers} rows=${body?.callers.callers} keyOf=${(one) => one.caller} empty="Nobody has given a command." />
      </div><div>
      <${Busiest} caption="Busy clients" columns=${BUSY} part=${body?.clients} rows=${body?.clients.clients} keyOf=${(one) => one.client_id} empty="No client sends or receives." />
      ${!head.limited && html`<${Table} caption="Workers" columns=${WORKERS} rows=${workers(status)} keyOf=${(one) => one.name} empty="No worker is attached." />`}
      <${Table} caption="Last ends" columns=${ENDS} rows=${body?.recent.ended ?? []} keyOf=${(end) => `${end.client_id}${end.ended_at_ms}`} empty=${body ? 'No connection has ended.' : asking()}
        more=${html`<p class="pages"><a href="#/events">All ends and refusals</a></p>`} />
    </div></div>`
}
Overview.what = (query, me) => ({ page: 'overview', app: seesAll(me) ? '' : query.app })
