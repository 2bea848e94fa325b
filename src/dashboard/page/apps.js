// Apps: who uses the cluster, what was refused, and a test event.
import { html, link } from '/base.js'
import { count } from '/words.js'
import { Facts, Note, Panel, State, Table, asking } from '/parts.js'
import { Order } from '/orders.js'
import { Tap } from '/tap.js'
import { refusalColumns } from '/events.js'
import { endColumns } from '/clients.js'

const COLUMNS = [
  { label: 'App', cell: (app) => html`<a href=${link('app', { app: app.id })}><b>${app.id}</b></a>` },
  { label: 'Clients', num: true, cell: (app) => count(app.clients) },
  { label: 'Remembered refusals', num: true, cell: (app) => count(app.refused) },
]

export function Apps({ body }) {
  return html`<h1>Apps</h1><${Table} caption="Apps" columns=${COLUMNS} rows=${body?.apps ?? []} keyOf=${(app) => app.id} empty=${body ? 'No app is configured.' : asking()} />`
}

const yes = (value) => (value ? 'yes' : 'no')

/** What else of the cluster concerns this app. */
function Backends({ status, app }) {
  const hooks = status.gateways.flatMap((gateway) => (gateway.evidence?.webhooks ?? []).filter((hook) => hook.app === app).map((hook) => ({ ...hook, gateway: gateway.name })))
  const readers = status.gateways.flatMap((gateway) => (gateway.redis_readers ?? []).filter((reader) => reader.app === app).map((reader) => ({ ...reader, gateway: gateway.name })))
  return html`${hooks.map((hook) => html`<${Note} key=${hook.url + hook.gateway}>${hook.gateway}: the webhook ${hook.url} fails: ${hook.why}<//>`)}
    ${readers.length > 0 && html`<${Table} caption="Redis through which it publishes" rows=${readers} keyOf=${(one) => one.gateway} columns=${[
      { label: 'Gateway', cell: (one) => one.gateway }, { label: 'Redis', cell: (one) => html`<span class="wrap">${one.url}</span>` },
      { label: 'State', cell: (one) => html`<${State} word=${one.connected ? 'connected' : 'not connected'} /> ${one.trouble}` },
    ]} />`}`
}

export function App({ head, body, query, me }) {
  const app = body?.app
  return html`<p class="path"><a href="#/apps">Apps</a></p><h1>App ${query.app}</h1>
    ${!body && html`<p class="soft">${asking()}</p>`}
    ${body && html`<${Panel} title="Now">
      <${Facts} rows=${[
        ['clients', html`<a href=${link('clients', { app: app.id })}>${count(body.clients)}</a>`],
        ['enabled', yes(app.enabled)],
        ['takes Pusher and Echo clients', app.keyed ? 'yes, it has a key' : 'no, it has no key'],
        ['takes raw clients', yes(app.raw)],
        ['groups', html`<a href=${link('groups', { app: app.id })}>show</a>`],
      ]} />
      <div class="row"><${Order} kind="send" label="Send an event…" app=${app.id} me=${me} event="test" /></div><//>
    <${Tap} me=${me} key=${app.id} app=${app.id} whom="whole_app" />
    <${Backends} status=${head.status} app=${query.app} />
    <${Table} caption="Refused" note="connections and requests, the newest first" columns=${refusalColumns} rows=${body.recent.refused} empty="Nothing was refused, as far as remembered." />
    <${Table} caption="Ended" columns=${endColumns} rows=${body.recent.ended} keyOf=${(end) => `${end.client_id}${end.ended_at_ms}`} empty="No connection has ended, as far as remembered." />`}`
}
App.what = (query) => ({ page: 'app', app: query.app })
