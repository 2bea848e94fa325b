// The frame of all pages: who is logged in, where one is, and how old the picture is.
import { html, post, render, route, useEffect, useState } from '/base.js'
import { live } from '/live.js'
import { age, gateways, seesAll, troubles } from '/words.js'
import { Note, useSecond } from '/parts.js'
import { Login, takeLink } from '/login.js'
import { Overview } from '/overview.js'
import { Client, Clients } from '/clients.js'
import { Group, Groups } from '/groups.js'
import { App, Apps } from '/apps.js'
import { Workers } from '/workers.js'
import { Events } from '/events.js'
import { Doctor } from '/doctor.js'

const PAGES = {
  overview: { name: 'Overview', view: Overview, what: Overview.what },
  clients: { name: 'Clients', view: Clients, what: Clients.what },
  client: { of: 'clients', name: 'Client', view: Client, what: Client.what },
  groups: { name: 'Groups', view: Groups, what: Groups.what },
  group: { of: 'groups', name: 'Group', view: Group, what: Group.what },
  apps: { name: 'Apps', view: Apps, what: Apps.what },
  app: { of: 'apps', name: 'App', view: App, what: App.what },
  workers: { name: 'Workers', all: true, view: Workers, what: () => ({ page: 'workers' }) },
  events: { name: 'Events', view: Events, what: Events.what },
  doctor: { name: 'Doctor', all: true, view: Doctor, what: () => ({ page: 'doctor' }) },
}

/** How old the picture is, and whether more comes. */
function Freshness() {
  useSecond()
  const old = live.headAt ? performance.now() - live.headAt : null
  const late = old != null && old > 6000
  const tone = live.paused || live.state === 'asleep' ? 'warn' : live.state !== 'open' ? 'bad' : late || live.headError ? 'bad' : 'good'
  const word = live.state === 'lost' ? 'no connection' : live.paused || live.state === 'asleep' ? 'paused' : live.state === 'connecting' ? 'connecting' : late ? 'no answer' : 'live'
  return html`<span class="freshness"><span class=${`state ${tone}`}><span class="dot" aria-hidden="true"></span>${word}</span>
    <span class="soft" id="age">${old == null ? 'nothing yet' : `as of ${age(old)} ago`}</span></span>`
}

// Pages of one app.
const OF_AN_APP = { clients: 'clients', client: 'clients', groups: 'groups', group: 'groups', app: 'app to show' }

/** Where a page of an app stands if there is no app. */
const NoApp = ({ name, what }) => html`<h1>${name}</h1><p>The gateways have no app, so there are no ${what}: see <a href="#/apps">Apps</a>. They read apps from [[apps]] in their configuration, and from an apps file.</p>`

/** What everybody has to know on every page. */
function Troubles() {
  useSecond()
  const lost = live.state === 'lost'
  const old = live.headAt ? age(performance.now() - live.headAt) : ''
  // Not read out at every second: Announced says it once.
  if (lost) return html`<${Note} quiet>The dashboard does not answer: what is shown is ${old ? `${old} old` : 'nothing'}. It is tried again. ${live.why}<//>`
  if (live.headError) return html`<${Note} quiet>${live.headError}. ${old && `What is shown is ${old} old.`}<//>`
  return null
}

/** Read out when it changes, and only then. */
function Announced() {
  const status = live.head?.status
  const silent = status ? gateways(status).filter((one) => !one.known).map((one) => one.name) : []
  const words = live.state === 'lost' ? 'The dashboard does not answer.' : live.headError ? 'No gateway answers.' : silent.length ? `No answer from ${silent.join(', ')}.` : status ? 'All gateways answer.' : ''
  return html`<div class="hidden" role="status" aria-live="polite">${words}</div>`
}

function Header({ me, page, logout }) {
  const epoch = live.head?.status.view?.epoch
  const bad = live.head ? troubles(live.head.status).length : 0
  return html`<header>
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById('main').focus() }}>To the content</a>
    <div class="bar">
      <a class="brand" href="#/overview"><img src="/icon.svg" alt="" width="22" height="22" /> Broadgate</a>
      <span class="cluster">${me.cluster && html`<b>${me.cluster}</b> `}${me.protected && html`<span class="tag">protected</span> `}${epoch && html`<span class="soft">view ${epoch.term}.${epoch.count}</span>`}</span>
      <${Freshness} />
      <span class="tools"><button type="button" class="plain" aria-pressed=${live.paused} onClick=${() => live.pause(!live.paused)}>${live.paused ? 'Go on' : 'Pause'}</button>
      ${me.who && html`<span class="soft who">${me.who.replace(/^token:/, '')}${me.role && me.role !== 'admin' ? ` (${me.role})` : ''}</span>`}
      <button type="button" class="plain" onClick=${logout}>Log out</button></span>
    </div>
    <nav aria-label="Pages"><ul>${Object.entries(PAGES).filter(([, one]) => !one.of && (!one.all || seesAll(me))).map(([key, one]) => html`<li key=${key}>
      <a href=${`#/${key}`} aria-current=${(PAGES[page].of ?? page) === key ? 'page' : null}>${one.name}${key === 'doctor' && bad > 0 ? html` <span class="badge" aria-label=${`${bad} things to look at`}>${bad}</span>` : ''}</a></li>`)}</ul></nav>
  </header>`
}

/** The app whose page this tab has shown last, if it is there. */
function lastApp(apps) {
  const last = sessionStorage.getItem('app')
  return last != null && apps.includes(last) ? last : undefined
}

function Dashboard({ me, logout }) {
  const [at, setAt] = useState(route())
  const [, draw] = useState(0)
  useEffect(() => live.watch(() => draw((now) => now + 1)), [])
  useEffect(() => {
    takeLink()
    const moved = () => {
      // Who is logged in needs no link.
      takeLink()
      setAt(route())
      window.scrollTo(0, 0)
      document.getElementById('main')?.focus({ preventScroll: true })
    }
    window.addEventListener('hashchange', moved)
    return () => window.removeEventListener('hashchange', moved)
  }, [])
  const known = Object.hasOwn(PAGES, at.page) ? at.page : 'overview'
  // What is not shown to somebody is not asked for.
  const page = PAGES[known].all && !seesAll(me) ? 'overview' : known
  const { view, what: whatOf, name } = PAGES[page]
  const what = (query) => whatOf(query, me)
  const apps = seesAll(me) ? live.head?.apps ?? [] : me.apps
  const app = at.query.app ?? lastApp(apps) ?? me.app ?? (apps.includes('default') ? 'default' : apps[0]) ?? ''
  const query = { ...at.query, app }
  const waits = !apps.length && !('app' in at.query) && !me.app
  const lacksApp = waits && live.head && OF_AN_APP[page]
  useEffect(() => {
    if ('app' in at.query) sessionStorage.setItem('app', at.query.app)
  }, [at.query.app])
  useEffect(() => {
    // Pages of an app wait for the list of apps.
    live.show(waits && OF_AN_APP[page] ? { page: 'overview' } : what(query))
  })
  useEffect(() => {
    live.start()
    return () => live.stop()
  }, [])
  useEffect(() => {
    document.title = `${name} · ${me.cluster ?? 'Broadgate'}`
  }, [name])
  // A snapshot of another page is none of this one.
  const isOwn = JSON.stringify(live.what) === JSON.stringify(what(query))
  const shown = isOwn && live.snapshot?.number === live.number ? live.snapshot : null
  const body = shown?.body.ok
  return html`<${Header} me=${me} page=${page} logout=${logout} /><${Announced} />
    <main id="main" tabindex="-1">
      <${Troubles} />
      ${isOwn && live.bodyError && live.bodyError !== live.headError && html`<${Note} quiet=${body != null}>${live.bodyError}${body ? `. What is shown is ${age(performance.now() - live.takenAt)} old.` : ''}<//>`}
      ${lacksApp ? html`<${NoApp} name=${PAGES[PAGES[page].of ?? page].name} what=${lacksApp} />` : live.head ? html`<${view} key=${page} me=${me} head=${live.head} body=${body} query=${query} asked=${shown != null} />` : !live.headError && html`<p class="soft wait">Asking the cluster…</p>`}
    </main>
    <footer class="soft">${live.head?.asked && html`asked ${live.head.asked}${me.who ? ` as ${me.who}` : ''} · `}broadgate ${me.version} · times are UTC</footer>`
}

function Root() {
  const [me, setMe] = useState(null)
  const [error, setError] = useState('')
  const look = async () => {
    try {
      setMe(await (await fetch('/me')).json())
      setError('')
    } catch {
      setError('The dashboard does not answer: is it still running?')
    }
  }
  useEffect(() => { look() }, [])
  useEffect(() => live.watch(() => { if (live.state === 'out') look() }), [])
  if (error) return html`<main class="alone"><${Note}>${error}<//><button onClick=${look}>Try again</button></main>`
  if (!me) return null
  if (!me.logged_in) return html`<${Login} how=${me.login} why=${live.state === 'out' ? live.why : ''} done=${look} />`
  const logout = async () => {
    live.stop()
    await post('/logout', {}).catch(() => null)
    location.hash = ''
    look()
  }
  return html`<${Dashboard} me=${me} logout=${logout} />`
}

render(html`<${Root} />`, document.getElementById('app'))
