// Chromium without a window, and the page that it opens.
import fs from 'node:fs'
import http from 'node:http'
import path from 'node:path'
import { chromium } from 'playwright-core'
import { Skipped } from './suite.js'

const ROOT = path.join(import.meta.dirname, '..')
const FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-quic']

/** What a page loads, by its path; the bundles are those of the packages. */
export const FILES = {
  '/': ['text/html', path.join(ROOT, 'page/index.html')],
  '/js/pusher.js': ['text/javascript', path.join(ROOT, 'node_modules/pusher-js-8/dist/web/pusher.js')],
  '/js/echo.js': ['text/javascript', path.join(ROOT, 'node_modules/laravel-echo/dist/echo.iife.js')],
  // What some checks load besides.
  '/js/echo1.js': ['text/javascript', path.join(ROOT, 'node_modules/laravel-echo-1/dist/echo.iife.js')],
  '/js/io2.js': ['text/javascript', path.join(ROOT, 'node_modules/socket.io-client-2/dist/socket.io.js')],
  '/js/io4.js': ['text/javascript', path.join(ROOT, 'node_modules/socket.io-client-4/dist/socket.io.js')],
}

export async function browser(t, flags = []) {
  const executablePath = process.env.CLIENTS_CHROMIUM
  if (!executablePath || !fs.existsSync(executablePath)) throw new Skipped('Chromium is not available')
  const opened = await chromium.launch({ executablePath, args: [...FLAGS, ...flags], headless: true })
  t.onEnd(() => opened.close())
  return opened
}

/** Serves the page; `more` answers what is no file. */
export async function serve(t, more) {
  const server = http.createServer((request, answer) => {
    const file = FILES[request.url.split('?')[0]]
    if (file) {
      answer.writeHead(200, { 'content-type': `${file[0]}; charset=utf-8` })
      return fs.createReadStream(file[1]).pipe(answer)
    }
    if (more) return more(request, answer)
    answer.writeHead(404).end()
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.onEnd(() => { server.closeAllConnections(); server.close() })
  return `http://127.0.0.1:${server.address().port}`
}

/** A page that has loaded, with an error of its own as an error of the check. */
export async function open(opened, url) {
  const page = await (await opened.newContext()).newPage()
  page.faults = []
  page.on('pageerror', (error) => page.faults.push(String(error)))
  await page.goto(url)
  return page
}

/** Until what the page has heard fits; gives it. */
export async function heard(page, what, fits, limit = 20_000) {
  const end = Date.now() + limit
  for (;;) {
    const came = await page.evaluate('window.heard')
    if (fits(came)) return came
    if (Date.now() > end) throw new Error(`expected: the page hears ${what}\n    came:     ${JSON.stringify(came)} ${page.faults}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
