// What every file of the page needs: Preact and HTM, as they are published.
import { Component, h, render } from '/vendor/preact.js'
import htm from '/vendor/htm.js'
import { visible } from '/words.js'

export { Component, render }
export { useEffect, useRef, useState } from '/vendor/hooks.js'

// Every text that is drawn passes here; addresses and values of fields stay as they are.
const seen = (child) => (typeof child === 'string' ? visible(child) : Array.isArray(child) ? child.map(seen) : child)

export const html = htm.bind((type, props, ...children) => h(type, props, ...children.map(seen)))

/** A request that changes something; its answer, or an Error with the server's sentence. */
export async function post(path, body) {
  let response
  try {
    response = await fetch(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-broadgate-dashboard': '1' },
      body: JSON.stringify(body),
    })
  } catch {
    throw new Error('the dashboard does not answer: is it still running?')
  }
  const answer = response.status === 204 ? null : await response.json().catch(() => null)
  if (response.status === 413) throw new Error('nothing was done: this is longer than the dashboard takes')
  if (!response.ok) throw new Error(answer?.error ?? `the dashboard answers ${response.status}`)
  return answer
}

/** The page of an address such as #/client?app=shop&id=4uaa. */
export function route(hash = location.hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split('?')
  return { page: path || 'overview', query: Object.fromEntries(new URLSearchParams(query)) }
}

/** The address of a page; what is empty is left out. */
export function link(page, query = {}) {
  const filled = Object.entries(query).filter(([, value]) => value !== '' && value != null)
  return `#/${page}${filled.length ? `?${new URLSearchParams(filled)}` : ''}`
}

/** Goes to a page. */
export function go(page, query) {
  location.hash = link(page, query)
}
