// The checks of `broadgate doctor`, and what to do.
import { html } from '/base.js'
import { counted } from '/words.js'
import { State, Table } from '/parts.js'

export function Doctor({ body, asked }) {
  const checks = body?.checks ?? []
  const rank = { fail: 0, warn: 1, ok: 2 }
  const rows = [...checks].sort((a, b) => rank[a.level] - rank[b.level])
  const sum = !body ? '' : body.failed ? `${counted(body.failed, 'check')} failed${body.warned ? `, ${body.warned} warn` : ''}` : body.warned ? `${counted(body.warned, 'check')} ${body.warned === 1 ? 'warns' : 'warn'}` : 'All is well'
  const columns = [
    { label: 'State', fit: true, pair: true, cell: (one) => html`<${State} word=${one.level} />` },
    { label: 'Check', fit: true, pair: true, cell: (one) => html`<b>${one.check}</b>` },
    { label: 'Found', cell: (one) => one.findings.length
      ? html`<ul class="findings">${one.findings.map((found) => html`<li key=${found.what}><span class="wrap">${found.what}</span>${found.do && html`<div class="soft">do: ${found.do}</div>`}</li>`)}</ul>`
      : html`<span class="soft">${one.well || 'nothing is wrong'}</span>` },
  ]
  return html`<h1>Doctor</h1>
    ${body && html`<p class=${`health ${body.failed ? 'bad' : body.warned ? 'warn' : 'good'}`}><span class="dot" aria-hidden="true"></span><b>${sum}</b></p>`}
    ${!asked && html`<p class="soft">Examining every gateway…</p>`}
    ${body && html`<${Table} caption="Checks" note="as broadgate doctor prints them, every 10 s" columns=${columns} rows=${rows} keyOf=${(one) => one.check} />`}`
}
