// Groups by the beginning of their names; and one of them.
import { go, html, link } from '/base.js'
import { bytes, count, counted } from '/words.js'
import { clientColumns, Missing } from '/clients.js'
import { AppChoice, Facts, Field, NextPage, Panel, Table, asking } from '/parts.js'
import { Order } from '/orders.js'
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
      empty=${body ? 'No such group has members.' : asking()}
      more=${html`<${NextPage} to=${body?.next_cursor && link('groups', { ...query, cursor: body.next_cursor })} from=${query.cursor && link('groups', { ...query, cursor: '' })} />`} />`
}
Groups.what = (query) => ({ page: 'groups', app: query.app, prefix: query.prefix ?? '', cursor: query.cursor ?? '' })

const HISTORY = [
  { label: 'Offset', num: true, cell: (one) => count(one.offset) },
  { label: 'Bytes', num: true, cell: (one) => bytes(one.bytes) },
  { label: 'Command', cell: (one) => html`<code class="wrap">${one.command_id}</code>` },
]

export function Group({ body, query, me }) {
  const counts = body?.count.groups[query.group]
  return html`<p class="path"><a href=${link('groups', { app: query.app })}>Groups</a></p>
    <h1>Group <code class="wrap">${query.group}</code></h1>
    ${!body && html`<p class="soft">${asking()}</p>`}
    ${body && html`<${Missing} coverage=${body.members.coverage} />
    <${Panel} title="Now">
      <${Facts} rows=${[
        ['app', html`<a href=${link('app', { app: query.app })}>${query.app || 'default'}</a>`],
        ['members', count(counts?.clients ?? 0)],
        ['users present', body.users_total ? html`${count(body.users_total)}: <span class="wrap">${body.users.slice(0, 20).join(', ')}${body.users_total > 20 ? ', …' : ''}</span>` : 'none'],
        ['history', body.history.position == null ? 'not kept' : `up to ${count(body.history.position)}`],
      ]} />
      <div class="row"><${Order} kind="send" label="Send…" app=${query.app} to=${{ group: query.group }} me=${me} />
        <${Order} kind="close" label="Disconnect its members…" app=${query.app} to=${{ group: query.group }} me=${me} /></div><//>
    <${Tap} me=${me} key=${query.group} app=${query.app} whom=${{ group: query.group }} kinds=${['placed', 'dropped', 'joined', 'left', 'subscribing', 'closed']} />
    <${Table} caption="Members" note=${body.members.next_cursor ? 'the first of them' : ''} columns=${clientColumns} rows=${body.members.clients} keyOf=${(one) => one.client_id} empty="None is connected."
      more=${body.members.next_cursor && html`<p class="pages"><a href=${link('clients', { app: query.app, by: 'group', value: query.group })}>All of them</a></p>`} />
    ${body.history.messages.length > 0 && html`<${Table} caption="Last messages" note="their content is not shown here" columns=${HISTORY} rows=${body.history.messages} keyOf=${(one) => one.offset} />`}`}`
}
Group.what = (query) => ({ page: 'group', app: query.app, group: query.group ?? '' })
