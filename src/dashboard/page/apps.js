// Apps: who uses the cluster, what was refused, and a test event.
import { html, link, useRef } from '/base.js'
import { bytes, count, counted, rate, seesAll } from '/words.js'
import { Facts, Meter, Note, Panel, State, Table, asking } from '/parts.js'
import { Order, Orders } from '/orders.js'
import { Tap } from '/tap.js'
import { refusalColumns } from '/events.js'
import { Missing, endColumns } from '/clients.js'
import { Busiest, CALLERS } from '/overview.js'

/** How much of its limits an app has used, of the one that is nearest first. */
function limits(app) {
  const all = [['in the cluster', app.clients, app.connections_max], ['at one gateway', app.clients_at_a_gateway, app.connections_per_gateway_max]]
  return all.filter(([, , max]) => max > 0).sort((a, b) => b[1] / b[2] - a[1] / a[2])
}

function Limits({ app, most = 2 }) {
  const rows = limits(app)
  if (!rows.length) return html`<span class="soft">no limit</span>`
  return rows.slice(0, most).map(([where, used, max]) => html`<div key=${where} class="limit"><${Meter} value=${used} max=${max} label=${`connections ${where}`} /> <span class="soft">${where}</span></div>`)
}

const COLUMNS = [
  { label: 'App', cell: (app) => html`<a href=${link('app', { app: app.app })}><b class="wrap">${app.app}</b></a>` },
  { label: 'Clients', num: true, cell: (app) => count(app.clients) },
  { label: 'Limit', cell: (app) => html`<${Limits} app=${app} most=${1} />` },
  { label: 'In/s', num: true, cell: (app) => rate(app.messages_in_per_s) },
  { label: 'Out/s', num: true, cell: (app) => rate(app.messages_out_per_s) },
  { label: 'Bytes/s', num: true, cell: (app) => bytes(Math.round(app.bytes_out_per_s)) },
  { label: 'Refused', num: true, cell: (app) => count(app.refused) },
]

export function Apps({ body }) {
  const last = useRef(null)
  if (body && !body.busy) last.current = body
  const known = last.current
  const rows = [...known?.apps ?? []].sort((a, b) => a.app.localeCompare(b.app, 'en', { numeric: true }))
  const note = known && (known.measured_ms === 0 ? 'rates are being measured' : counted(rows.length, 'app'))
  return html`<h1>Apps</h1>${body?.busy && html`<${Note} tone="warn" quiet>The gateways are busy: ${body.busy}. They are asked again every 10 s.<//>`}<${Missing} coverage=${body?.coverage} /><${Table} caption="Apps" note=${note} columns=${COLUMNS} rows=${rows} keyOf=${(app) => app.app} empty=${known ? 'No app is configured: [[apps]] in the configuration, or an apps file.' : body ? 'Not measured yet.' : asking()} />`
}
Apps.what = (_, me) => ({ page: 'apps', only: seesAll(me) ? [] : me.apps })

const yes = (value) => (value ? 'yes' : 'no')

/** The webhooks of an app that fail, by gateway. */
const failing = (status, app) => status.gateways.flatMap((gateway) => (gateway.evidence?.webhooks ?? []).filter((hook) => hook.app === app).map((hook) => ({ ...hook, gateway: gateway.name })))

/** What else of the cluster concerns this app. */
function Backends({ status, app }) {
  const readers = status.gateways.flatMap((gateway) => (gateway.redis_readers ?? []).filter((reader) => reader.app === app).map((reader) => ({ ...reader, gateway: gateway.name })))
  return html`${failing(status, app).map((hook) => html`<${Note} key=${hook.url + hook.gateway}>${hook.gateway}: the webhook ${hook.url} fails: ${hook.why}<//>`)}
    ${readers.length > 0 && html`<${Table} caption="Redis through which it publishes" rows=${readers} keyOf=${(one) => one.gateway} columns=${[
      { label: 'Gateway', cell: (one) => one.gateway }, { label: 'Redis', cell: (one) => html`<span class="wrap">${one.url}</span>` },
      { label: 'State', cell: (one) => html`<${State} word=${one.connected ? 'connected' : 'not connected'} /> ${one.trouble}` },
    ]} />`}`
}

/** Refusals by reason, as far as they are remembered. */
function Reasons({ reasons }) {
  const all = [...reasons].sort((a, b) => b[1] - a[1])
  if (!all.length) return 'none is remembered'
  return html`<span class="chips">${all.map(([reason, times]) => html`<span class="chip" key=${reason}>${reason} <b>${count(times)}</b></span>`)}</span>`
}

export function App({ head, body, query, me }) {
  const app = body?.app
  const now = body?.now
  const hooks = failing(head.status, app?.id ?? query.app).length
  return html`<p class="path"><a href="#/apps">Apps</a></p><h1>App ${query.app}</h1>
    ${!body && html`<p class="soft">${asking()}</p>`}
    ${body && html`<${Panel} title="Now">
      <${Facts} rows=${[
        ['clients', html`<a href=${link('clients', { app: app.id })}>${count(now?.clients ?? 0)}</a>`],
        ['connections', now ? html`<${Limits} app=${now} />` : body.busy ? `not measured yet: ${body.busy}` : 'not known'],
        ['messages', now && now.messages_out_per_s != null ? `${rate(now.messages_in_per_s)}/s in, ${rate(now.messages_out_per_s)}/s out, ${bytes(Math.round(now.bytes_out_per_s))}/s out` : 'not known yet'],
        ['refusals', html`<${Reasons} reasons=${body.reasons} />`],
        !head.limited && ['webhooks', hooks ? html`<b class="bad">${counted(hooks, 'gateway')} cannot post</b>` : 'none fails'],
        ['enabled', yes(app.enabled)],
        ['takes Pusher and Echo clients', app.keyed ? 'yes, it has a key' : 'no, it has no key'],
        ['takes raw clients', yes(app.raw)],
        ['groups', html`<a href=${link('groups', { app: app.id })}>show</a>`],
      ]} />
      <${Orders}><${Order} kind="send" label="Send an event…" app=${app.id} me=${me} event="test" /><//><//>
    <${Tap} me=${me} key=${app.id} app=${app.id} whom="whole_app" />
    <${Backends} status=${head.status} app=${app.id} />
    <${Busiest} caption="Callers" note="over the last 10 s" columns=${CALLERS} part=${body.callers} rows=${body.callers.callers} keyOf=${(one) => one.caller} empty="Nobody has given a command." />
    <${Table} caption="Refused" note="connections and requests, the newest first" columns=${refusalColumns} rows=${body.recent.refused} empty="Nothing was refused, as far as remembered." />
    <${Table} caption="Ended" columns=${endColumns} rows=${body.recent.ended} keyOf=${(end) => `${end.client_id}${end.ended_at_ms}`} empty="No connection has ended, as far as remembered." />`}`
}
App.what = (query) => ({ page: 'app', app: query.app })
