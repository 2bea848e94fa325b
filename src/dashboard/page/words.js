// Figures and states in words. Pure: tests/dashboard/words.js tests it.

/** "4,201", "104k", "1.3M". */
export function count(value) {
  if (value == null) return '?'
  if (value < 10_000) return Math.round(value).toLocaleString('en-US')
  if (value < 1e6) return `${(value / 1e3).toFixed(value < 1e5 ? 1 : 0)}k`
  return `${(value / 1e6).toFixed(value < 1e7 ? 2 : 1)}M`
}

/** A rate: small ones with a decimal. */
export function rate(value) {
  if (value == null) return '?'
  return value > 0 && value < 10 ? value.toFixed(1).replace(/\.0$/, '') : count(value)
}

/** "512 B", "64.0 KiB". */
export function bytes(value) {
  if (value == null) return '?'
  if (value < 1024) return `${value} B`
  if (value < 1024 ** 2) return `${(value / 1024).toFixed(1)} KiB`
  if (value < 1024 ** 3) return `${(value / 1024 ** 2).toFixed(1)} MiB`
  return `${(value / 1024 ** 3).toFixed(1)} GiB`
}

// Characters that are not seen, or that turn the direction of a text: the same that the command line escapes.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\u{e0000}-\u{e0fff}]/gu

/** A text of a stranger as it is: "\u{202e}nimda". */
export const visible = (text) => text.replace(UNSEEN, (one) => `\\u{${one.codePointAt(0).toString(16)}}`)

/** "1 client", "2 clients". */
export const counted = (value, noun) => `${count(value)} ${noun}${value === 1 ? '' : 's'}`

/** "5 s", "3 min", "2h 5m", "1d 2h". */
export function age(ms) {
  const s = Math.max(0, Math.floor(ms / 1000))
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min`
  if (s < 86_400) return `${Math.floor(s / 3600)}h ${Math.floor(s / 60) % 60}m`
  return `${Math.floor(s / 86_400)}d ${Math.floor(s / 3600) % 24}h`
}

/** "12:04:16" in UTC, with the date if it is not today's. */
export function clock(ms, now = Date.now()) {
  const iso = (at) => new Date(at).toISOString()
  const [day, time] = [iso(ms).slice(0, 10), iso(ms).slice(11, 19)]
  return day === iso(now).slice(0, 10) ? time : `${day} ${time}`
}

/** Whether somebody may see the cluster as a whole, and not some apps alone. */
export const seesAll = (me) => !me.apps?.length || me.apps.includes('*')

/** "4uaa..9tvg". */
export const short = (id) => (id.length > 12 ? `${id.slice(0, 4)}..${id.slice(-4)}` : id)

const STATES = {
  MEMBER_STATE_JOINING: 'joining', MEMBER_STATE_READY: 'ready', MEMBER_STATE_DRAINING: 'draining', MEMBER_STATE_LEAVING: 'leaving',
}
const CAUSES = {
  CAUSE_CLIENT: 'left', CAUSE_LOST: 'lost', CAUSE_SILENT: 'silent', CAUSE_COMMAND: 'closed by command', CAUSE_SLOW: 'slow',
  CAUSE_PROTOCOL: 'protocol', CAUSE_NO_WORKER: 'no worker', CAUSE_DRAIN: 'drained', CAUSE_EVENT: 'worker killer',
}
export const cause = (name) => CAUSES[name] ?? String(name).replace(/^CAUSE_/, '').toLowerCase().replaceAll('_', ' ')

/** Gateways of the view, each with its status if it answered, by name. */
export function gateways(status) {
  const members = (status.view?.members ?? []).filter((member) => member.role === 'ROLE_GATEWAY')
  const all = members.map((member) => {
    const known = status.gateways.find((one) => one.incarnation === member.incarnation)
    return { member, known, name: member.name, state: known ? STATES[member.state] ?? member.state : 'no answer' }
  })
  return all.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }))
}

/** Workers of the view, and those that are attached without having joined. */
export function workers(status) {
  const members = (status.view?.members ?? []).filter((member) => member.role === 'ROLE_WORKER')
  const joined = members.map((member) => {
    const known = status.workers.find((one) => one.incarnation === member.incarnation)
    return { name: member.name, services: member.services, state: STATES[member.state] ?? member.state, version: member.version, since_ms: member.since_ms, known }
  })
  const strangers = status.workers.filter((one) => !members.some((member) => member.incarnation === one.incarnation))
  const others = strangers.map((known) => ({ name: known.name, services: known.services, state: 'not joined', known }))
  return [...joined, ...others].sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }))
}

const sum = (all, of) => all.reduce((total, one) => total + (of(one) ?? 0), 0)

/** What a gateway has now of what holds clients up: counted at every look, or as of its last evidence. */
export const held = (known) => known?.counters ?? known?.evidence

/** The figures of the whole cluster. */
export function totals(status) {
  const known = gateways(status).map((gateway) => gateway.known).filter(Boolean)
  const now = known.map(held).filter(Boolean)
  const evidence = known.map((one) => one.evidence).filter(Boolean)
  return {
    clients: sum(known, (one) => one.clients), clients_max: sum(evidence, (one) => one.clients_max),
    slow: sum(now, (one) => one.slow), held: sum(now, (one) => one.held), paused: sum(now, (one) => one.paused),
    outbox: sum(now, (one) => one.outboxes_bytes),
    drops: sum(evidence, (one) => sum(Object.values(one.drops ?? {}), (value) => value)),
  }
}

const [GONE_MS, BACK_MS] = [600_000, 120_000]

/** Members that did not leave and are gone: for ten minutes, or for two if they are back. As `doctor` sees it. */
function vanished(status) {
  const all = new Map()
  for (const gateway of status.gateways) {
    for (const gone of gateway.evidence?.removed ?? []) if (!all.has(gone.incarnation)) all.set(gone.incarnation, gone)
  }
  const members = status.view?.members ?? []
  const seen = [...all.values()].map((gone) => ({ ...gone, is_back: members.some((member) => member.role === gone.role && (member.name === gone.name || (gone.address && member.address === gone.address))) }))
  return seen.filter((gone) => gone.age_ms < (gone.is_back ? BACK_MS : GONE_MS))
}

/** What is not as it should be, the worst first: level, sentence, and where to look. */
export function troubles(status) {
  const all = []
  const bad = (what, to = 'doctor') => all.push({ level: 'bad', what, to })
  const warn = (what, to = 'doctor') => all.push({ level: 'warn', what, to })
  if (!status.register_heard) bad(`the register ${status.register} is not heard: nobody can join or leave; traffic goes on`)
  const rows = gateways(status)
  for (const { name, known, state } of rows) {
    if (!known) { bad(`${name} does not answer`); continue }
    if (state === 'draining' || state === 'leaving' || state === 'joining') warn(`${name} is ${state}`, 'overview')
    if (known.register && !known.register.heard && status.register_heard) bad(`${name} does not hear the register`)
    const others = rows.filter((other) => other.known && other.name !== name && !known.peers.includes(other.name))
    if (others.length) bad(`${name} does not reach ${others.map((other) => other.name).join(', ')}`)
    for (const [listener, service] of Object.entries(known.listener_services ?? {})) {
      if (!status.workers.some((worker) => worker.services.includes(service))) {
        bad(`no worker takes service ${service}, which listener ${listener} of ${name} needs`, 'workers')
      }
    }
    for (const reader of known.redis_readers ?? []) if (!reader.connected) bad(`${name} is not connected to the Redis of app ${reader.app}`)
    for (const hook of known.evidence?.webhooks ?? []) warn(`a webhook of app ${hook.app} fails: ${hook.why}`)
    for (const worker of known.evidence?.silent_workers ?? []) bad(`worker ${worker.name} has not answered ${name} for ${worker.seconds} s`, 'workers')
  }
  for (const gone of vanished(status)) {
    const what = `${gone.name} was removed ${age(gone.age_ms)} ago: it did not beat`
    if (gone.is_back) warn(`${what}, and is back since`)
    else bad(gone.role === 'ROLE_GATEWAY' ? `${what}, and its clients have lost it` : what)
  }
  for (const name of status.coverage?.missing ?? []) {
    if (!rows.some((row) => row.name === name && !row.known)) bad(`${name} does not answer`)
  }
  return all.sort((a, b) => (a.level === b.level ? 0 : a.level === 'bad' ? -1 : 1))
}
