// Workers: what they take, and whether they keep up.
import { html } from '/base.js'
import { age, count, gateways, workers } from '/words.js'
import { Note, State, Table } from '/parts.js'

export function Workers({ head }) {
  const { status } = head
  const all = workers(status)
  const services = new Map()
  for (const { name, known } of gateways(status)) {
    for (const [listener, service] of Object.entries(known?.listener_services ?? {})) {
      services.set(service, [...(services.get(service) ?? []), `${listener} of ${name}`])
    }
  }
  const rows = [...services].map(([service, listeners]) => ({ service, listeners, takers: all.filter((one) => one.services.includes(service)) }))
  const silent = gateways(status).flatMap(({ name, known }) => (known?.evidence?.silent_workers ?? []).map((worker) => ({ ...worker, gateway: name })))
  const columns = [
    { label: 'Worker', cell: ({ name }) => html`<b>${name}</b>` },
    { label: 'State', cell: ({ state }) => html`<${State} word=${state} />` },
    { label: 'Services', cell: ({ services }) => services.join(', ') },
    { label: 'Clients', num: true, cell: ({ known }) => count(known?.clients) },
    { label: 'Unanswered', num: true, cell: ({ known }) => count(known?.events_unanswered) },
    { label: 'Gateways', num: true, cell: ({ known }) => count(known?.gateways) },
    { label: 'Version', cell: ({ version }) => version ?? '?' },
    { label: 'For', num: true, cell: ({ since_ms }) => (since_ms ? age(Date.now() - since_ms) : '?') },
  ]
  return html`<h1>Workers</h1>
    ${silent.map((one) => html`<${Note} key=${one.name + one.gateway}>${one.name} has answered none of ${count(one.events_unanswered)} events of ${one.gateway} for ${one.seconds} s.<//>`)}
    <${Table} caption="Workers" columns=${columns} rows=${all} keyOf=${(one) => one.name} empty="No worker is attached." />
    <${Table} caption="Services that listeners need" rows=${rows} keyOf=${(one) => one.service} empty="No listener needs a worker." columns=${[
      { label: 'Service', cell: ({ service }) => html`<b>${service}</b>` },
      { label: 'Taken by', cell: ({ takers }) => (takers.length ? takers.map((one) => one.name).join(', ') : html`<${State} word="no worker" />`) },
      { label: 'Needed by', cell: ({ listeners }) => listeners.join(', ') },
    ]} />`
}
