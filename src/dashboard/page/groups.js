// Groups by the beginning of their names; and one of them.
import { go, html, link } from '/base.js'
import { age, bytes, count, counted } from '/words.js'
import { clientColumns, Missing } from '/clients.js'
import { AppChoice, Facts, Field, NextPage, Panel, Table, asking } from '/parts.js'
import { Order, Orders } from '/orders.js'
import { Tap } from '/tap.js'

export function Groups({ head, body, query }) {
  const submit = (event) => {
    event.preventDefault()
    const form = Object.fromEntries(new FormData(event.target))
    go('groups', { app: form.app, prefix: form.prefix.trim() })
  }
  const columns = [
    { label: 'Group', cell: (one) => html`<a class="wrap" href=${link('group', { app: query.app, group: one.name })}>${one.name}</a>` },
    { label: 'Clients', num: true, cell: (one) => count(one.clients) },
  ]
  return html`<h1>Groups</h1>
    <form class="search" role="search" onSubmit=${submit} key=${JSON.stringify(query)}>
      <${AppChoice} app=${query.app} apps=${head.apps} />
      <${Field} label="Names that begin with"><input name="prefix" autocomplete="off" spellcheck=${false} defaultValue=${query.prefix ?? ''} /><//><button>Show</button></form>
    <${Missing} coverage=${body?.coverage} />
    <${Table} caption="Groups" note=${body ? `${counted(body.names.length, 'row')} of app ${query.app || 'default'}` : ''} columns=${columns} rows=${body?.names ?? []} keyOf=${(one) => one.name}
      empty=${body ? (query.prefix ? `No group whose name begins with "${query.prefix}" has members.` : 'No group of this app has members.') : asking()}
      more=${html`<${NextPage} to=${body?.next_cursor && link('groups', { ...query, cursor: body.next_cursor })} from=${query.cursor && link('groups', { ...query, cursor: '' })} />`} />`
}
Groups.what = (query) => ({ page: 'groups', app: query.app, prefix: query.prefix ?? '', cursor: query.cursor ?? '' })

const HISTORY = [
  { label: 'Offset', fit: true, pair: true, cell: (one) => count(one.offset) },
  { label: 'Age', fit: true, pair: true, cell: (one) => age(one.age_ms) },
  { label: 'Event', cell: (one) => one.event && html`<span class="wrap">${one.event}</span>` },
  { label: 'Bytes', fit: true, pair: true, cell: (one) => bytes(one.bytes) },
  { label: 'Command', cell: (one) => html`<code class="wrap">${one.command_id}</code>` },
]

/** "gw-1 8,790, gw-2 391", each with its share. */
const holders = (clients) => [...clients].sort((a, b) => b.clients - a.clients).map((one) => `${one.gateway} ${count(one.clients)}`).join(', ')

/** What its home knows. */
function homeFacts({ home, users, users_total }, query) {
  const members = home.clients.reduce((all, one) => all + one.clients, 0)
  const unsynced = home.coverage?.complete === false ? `; not synced: ${(home.coverage.missing ?? []).join(', ')}` : ''
  const kept = home.history
  return [
    ['app', html`<a href=${link('app', { app: query.app })}>${query.app || 'default'}</a>`],
    ['home', `${home.home}${home.since ? `, since view ${home.since.term}.${home.since.count} (${age(home.since_ms)})` : ''}${unsynced}`],
    ['next home', home.next_home || 'there is no other gateway'],
    ['order', home.position ? `${home.position}, ${age(home.position_age_ms)} ago` : 'nothing was sent since'],
    ['members', members ? `${count(members)}: ${holders(home.clients)}` : 'none'],
    ['users present', users_total ? html`${count(users_total)}: <span class="wrap">${users.slice(0, 20).join(', ')}${users_total > 20 ? ', …' : ''}</span>` : 'none'],
    ['history', kept ? `${count(kept.messages)} of ${count(kept.messages_max)}, offsets ${count(kept.oldest)} to ${count(kept.newest)}, ${bytes(kept.bytes)}, the oldest ${age(kept.oldest_age_ms)} of ${age(kept.age_max_ms)} old` : 'none is kept, or it has not started'],
    ['last value', home.last ? `${bytes(home.last.bytes)}, ${age(home.last.age_ms)} old` : 'none'],
  ]
}

export function Group({ body, query, me }) {
  return html`<p class="path"><a href=${link('groups', { app: query.app })}>Groups</a></p>
    <h1>Group <code class="wrap">${query.group}</code></h1>
    ${!body && html`<p class="soft">${asking()}</p>`}
    ${body && html`<${Missing} coverage=${body.members.coverage} />
    <${Panel} title="Now">
      <${Facts} rows=${homeFacts(body, query)} />
      <${Orders}><${Order} kind="send" label="Send a test message…" app=${query.app} to=${{ group: query.group }} me=${me} />
        <${Order} kind="close" label="Disconnect its members…" app=${query.app} to=${{ group: query.group }} me=${me} /><//><//>
    <${Tap} me=${me} key=${query.group} app=${query.app} whom=${{ group: query.group }} kinds=${['placed', 'dropped', 'joined', 'left', 'subscribing', 'closed']} />
    <${Table} caption="Members" note=${body.members.next_cursor ? 'the first of them' : ''} columns=${clientColumns} rows=${body.members.clients} keyOf=${(one) => one.client_id} empty="None is connected."
      more=${body.members.next_cursor && html`<p class="pages"><a href=${link('clients', { app: query.app, by: 'group', value: query.group })}>All of them</a></p>`} />
    ${body.history.messages.length > 0 && html`<${Table} caption="Last messages" note="what they say is not shown here" columns=${HISTORY.filter((one) => one.label !== 'Event' || body.history.messages.some((message) => message.event))} rows=${body.history.messages} keyOf=${(one) => one.offset} />`}`}`
}
Group.what = (query) => ({ page: 'group', app: query.app, group: query.group ?? '' })
