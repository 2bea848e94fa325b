// The cluster at one glance.
import { html } from '/base.js'
import { age, bytes, clock, count, counted, gateways, held, rate, short, totals, troubles, workers } from '/words.js'
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
    <${Tile} label="Clients" value=${count(sums.clients)} note=${sums.clients_max ? `of ${count(sums.clients_max)} that fit` : ''} to="#/clients" />
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
  { label: 'Client', cell: (end) => html`<${ClientLink} app=${end.app} id=${end.client_id}>${end.uid || short(end.client_id)}<//>` },
  { label: 'What', cell: (end) => end.why.title },
]

export function Overview({ head, body }) {
  const { status } = head
  if (head.limited) return html`<h1>Overview</h1><p>Your token is for ${head.apps.map((id, n) => html`${n ? ', ' : ''}<a href=${`#/app?${new URLSearchParams({ app: id })}`}>app ${id}</a>`)}: the cluster as a whole is not shown to you.</p>`
  return html`<h1 class="hidden">Overview</h1>
    <${Health} status=${status} />
    <${Figures} status=${status} />
    <${Table} caption="Gateways" columns=${GATEWAYS.filter((one) => one.label !== 'Busy' || status.gateways.some((known) => known.counters))} rows=${gateways(status)} keyOf=${(one) => one.member.incarnation} />
    <div class="two">
      <${Table} caption="Workers" columns=${WORKERS} rows=${workers(status)} keyOf=${(one) => one.name} empty="No worker is attached." />
      <${Table} caption="Last ends" columns=${ENDS} rows=${body?.ended ?? []} keyOf=${(end) => `${end.client_id}${end.ended_at_ms}`} empty=${body ? 'No connection has ended.' : asking()}
        more=${html`<p class="pages"><a href="#/events">All ends and refusals</a></p>`} />
    </div>`
}
