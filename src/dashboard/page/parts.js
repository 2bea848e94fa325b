// The parts of which pages are made.
import { html, useEffect, useState } from '/base.js'
import { live } from '/live.js'
import { count, rate } from '/words.js'
import { points, roundUp, spanOf, spanWords } from '/rates.js'

/** Figures stand at the right; what is short takes no more room than it needs, and on a card may stand beside another. */
const kind = (column) => `${column.num ? 'num' : column.fit ? 'fit' : ''}${column.pair ? ' pair' : ''}`

/** A table that people, keyboards and screen readers can walk; at 360 px its rows are cards. */
export function Table({ caption, note, columns, rows, keyOf, empty = 'None.', more }) {
  return html`<div class="panel">
    <table role="table">
      <caption>${caption}${note && html` <span class="soft">${note}</span>`}</caption>
      ${rows.length > 0 && html`<thead role="rowgroup"><tr role="row">${columns.map((column) => html`<th role="columnheader" scope="col" class=${kind(column)}>${column.label}</th>`)}</tr></thead>`}
      <tbody role="rowgroup">
        ${rows.map((row, place) => html`<tr role="row" key=${keyOf ? keyOf(row) : place}>${columns.map((column) => html`
          <td role="cell" class=${kind(column)} data-label=${column.label}><div class="cell">${column.cell(row)}</div></td>`)}</tr>`)}
        ${!rows.length && html`<tr role="row" key="none"><td role="cell" class="none soft" colspan=${columns.length}>${empty}</td></tr>`}
      </tbody>
    </table>
    ${more}
  </div>`
}

export const Panel = ({ title, note, children }) => html`<section class="panel">
  <h2>${title}${note && html` <span class="soft">${note}</span>`}</h2>${children}</section>`

/** A state in a word, with a dot in its colour. */
export function State({ word }) {
  const tone = { ready: 'good', ok: 'good', connected: 'good', open: 'good', 'no answer': 'bad', fail: 'bad', 'not connected': 'bad', lost: 'bad' }[word] ?? 'warn'
  return html`<span class="state ${tone}"><span class="dot" aria-hidden="true"></span>${word}</span>`
}

/** A figure with a name, and a line of where it was. */
export function Tile({ label, value, note, tone = '', to, children }) {
  const name = to ? html`<a href=${to}>${label}</a>` : label
  return html`<div class="tile ${tone}"><div class="label">${name}</div><div class="value">${value}</div>
    ${note && html`<div class="soft">${note}</div>`}${children}</div>`
}

/** How full something is. */
export function Meter({ value, max, label }) {
  if (value == null || !max) return html`<span>${count(value)}</span>`
  const part = Math.min(1, value / max)
  const tone = part >= 0.9 ? 'bad' : part >= 0.75 ? 'warn' : ''
  return html`<span class="meter" role="img" aria-label=${`${label}: ${count(value)} of ${count(max)}`}>
    <span>${count(value)} <span class="soft">of ${count(max)}</span></span>
    <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true"><rect class="track" width="100" height="6" /><rect class=${`fill ${tone}`} width=${Math.max(part * 100, value ? 1 : 0)} height="6" /></svg></span>`
}

/** A small line without axes, of [{at, value}]. */
export function Spark({ values, label }) {
  const most = Math.max(...values.map((one) => one.value), 1)
  return html`<svg class="spark" viewBox="0 0 100 22" preserveAspectRatio="none" role="img" aria-label=${label}>
    <polyline points=${points(values, 100, 22, spanOf(values), most)} vector-effect="non-scaling-stroke" /></svg>`
}

/** A line over the last minutes, with its top. */
export function Chart({ values, label, unit = '/s' }) {
  const most = roundUp(Math.max(...values.map((one) => one.value), 1))
  const span = spanWords(spanOf(values))
  const line = points(values, 300, 80, spanOf(values), most)
  const first = line.split(' ')[0]?.split(',')[0] ?? 300
  const now = values.at(-1)?.value
  return html`<figure class="chart">
    <svg viewBox="0 0 300 80" preserveAspectRatio="none" role="img" aria-label=${`${label}: ${rate(now)}${unit && ' a second'} now, at most ${rate(Math.max(...values.map((one) => one.value), 0))} in the last ${span}`}>
      <line class="grid" x1="0" x2="300" y1="1" y2="1" vector-effect="non-scaling-stroke" /><line class="grid" x1="0" x2="300" y1="40" y2="40" vector-effect="non-scaling-stroke" /><line class="grid" x1="0" x2="300" y1="79" y2="79" vector-effect="non-scaling-stroke" />
      ${line && html`<polygon points=${`${first},79 ${line} 300,79`} /><polyline points=${line} vector-effect="non-scaling-stroke" />`}
    </svg>
    <figcaption aria-hidden="true"><span class="top">${rate(most)}${unit}</span><span class="from">${span} ago</span><span class="now">now</span></figcaption>
  </figure>`
}

/** A field with its name. */
export const Field = ({ label, children }) => html`<label class="field"><span>${label}</span>${children}</label>`

/** Why nothing is shown, or what is shown is old. */
export function Note({ tone = 'bad', quiet, children }) {
  return html`<p class="note ${tone}" role=${quiet ? null : 'status'}>${children}</p>`
}

/** Draws again every second: for ages. */
export function useSecond() {
  const [, tick] = useState(0)
  useEffect(() => {
    const timer = setInterval(() => tick((now) => now + 1), 1000)
    return () => clearInterval(timer)
  }, [])
}

/** The name of a client that leads to it. */
export const ClientLink = ({ app, id, children }) => html`<a href=${`#/client?${new URLSearchParams({ app, id })}`}><code>${children ?? id}</code></a>`

/** Pairs of names and values. */
export const Facts = ({ rows }) => html`<dl class="facts">${rows.filter(Boolean).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`

/** The page that follows. */
export function NextPage({ to, from }) {
  if (!to && !from) return null
  return html`<p class="pages">${from && html`<a href=${from}>First page</a>`}${to && html`<a href=${to}>Next page</a>`}</p>`
}

/** A choice of one app of those that are known; also of one that is not. */
export function AppChoice({ app, apps }) {
  return html`<${Field} label="App"><input name="app" list="apps" defaultValue=${app ?? ''} autocomplete="off" spellcheck=${false} /><//>
    <datalist id="apps">${apps.map((id) => html`<option value=${id} />`)}</datalist>`
}

/** What stands where an answer is missing. */
export const asking = () => (live.bodyError ? 'Nothing can be shown: see above.' : 'Asking…')
