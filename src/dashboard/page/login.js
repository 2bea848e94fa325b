// How one gets in: by a link that works once, by a token, or without anything where the cluster has no secret.
import { html, post, useEffect, useState } from '/base.js'
import { Field, Note } from '/parts.js'

/** The key of a link that was opened: out of the address, the history and what is shown to others. */
export function takeLink() {
  const key = new URLSearchParams(location.hash.slice(1)).get('link')
  if (key) history.replaceState(null, '', '#/overview')
  return key
}

/** `why` is why the last session has ended. */
export function Login({ how, why, done }) {
  const [error, setError] = useState('')
  const [busy, setBusy] = useState(false)
  const enter = async (shown) => {
    setBusy(true)
    setError('')
    try {
      await post('/login', shown)
      done()
    } catch (failed) {
      setError(failed.message)
    }
    setBusy(false)
  }
  useEffect(() => {
    // A link that is opened in a tab of this page only changes its address.
    const linked = () => {
      const key = takeLink()
      if (key && how === 'link') enter({ link: key })
    }
    if (how === 'open') enter({})
    linked()
    window.addEventListener('hashchange', linked)
    return () => window.removeEventListener('hashchange', linked)
  }, [])
  const submit = (event) => {
    event.preventDefault()
    enter({ token: new FormData(event.target).get('token').trim() })
  }
  return html`<main class="alone">
    <h1><img src="/icon.svg" alt="" width="28" height="28" /> Broadgate</h1>
    ${how === 'token' && html`<form onSubmit=${submit}>
      <${Field} label="Token"><input name="token" type="password" autocomplete="current-password" required autofocus /><//>
      <p class="soft">A token of this cluster, or its shared secret. It is kept in the memory of this dashboard's process, until you log out or look at nothing for half an hour.</p>
      <button disabled=${busy}>Log in</button></form>`}
    ${how === 'link' && !busy && html`<p>Open the link that <code>broadgate dashboard</code> has printed. It works once: press Enter there for another one.</p>`}
    ${how === 'open' && error && html`<button onClick=${() => enter({})}>Try again</button>`}
    ${error ? html`<${Note}>${error}<//>` : why && html`<${Note} tone="warn">You were logged out: ${why}.<//>`}
  </main>`
}
