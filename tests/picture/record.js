// Records the README's picture; see `run` beside this file.
//
// Two browsers have the chat open; a page of our own shows what they show, and a terminal below them. Each step
// does something real and is photographed; the pictures become one SVG that shows them in turn.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const [broadgate, out] = process.argv.slice(2)
const { chromium } = createRequire(new URL('../clients/node/package.json', import.meta.url))('playwright-core')

const WIDTH = 1200
const HEIGHT = 692
const BYTES_MAX = 1_000_000
/** The chat is laid out for this many pixels, and shown smaller. */
const FRAME = { width: 840, height: 560, scale: 0.69 }
const PAGES = ['http://127.0.0.1:8080/', 'http://127.0.0.1:8081/']

const dir = mkdtempSync(join(tmpdir(), 'broadgate-picture-'))
const up = spawn(resolve(broadgate), ['up'], { cwd: dir, stdio: ['ignore', 'pipe', 'inherit'] })
try {
  await ready(up)
  await record()
} finally {
  up.kill('SIGINT')
  await new Promise((done) => (up.exitCode === null ? up.once('exit', done) : done()))
  rmSync(dir, { recursive: true })
}

async function ready(child) {
  let text = ''
  for await (const chunk of child.stdout) {
    text += chunk
    if (text.includes('Console')) break
  }
  for (const page of PAGES) {
    if (!text.includes(page)) throw new Error(`${page} is taken by another process:\n${text}`)
  }
}

async function record() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox'] })
  try {
    const open = (width, height) => browser.newPage({
      viewport: { width, height }, locale: 'en-GB', colorScheme: 'light', reducedMotion: 'reduce',
    })
    const chats = []
    for (const url of PAGES) {
      const chat = await open(FRAME.width, FRAME.height)
      await chat.goto(url)
      chats.push(chat)
    }
    const page = await open(WIDTH, HEIGHT)
    await page.setContent(stage())
    const camera = await page.context().newCDPSession(page)
    const shots = []
    const shoot = async (seconds) => {
      const views = await Promise.all(chats.map((chat) => chat.screenshot({ caret: 'hide' })))
      await page.evaluate(async (views) => {
        const images = [...document.images]
        images.forEach((image, index) => { image.src = `data:image/png;base64,${views[index]}` })
        await Promise.all(images.map((image) => image.decode()))
      }, views.map((view) => view.toString('base64')))
      const { data } = await camera.send('Page.captureScreenshot', { format: 'webp', quality: 80 })
      shots.push({ data, seconds })
    }
    await play(page, chats, shoot)
    writeFileSync(out, svg(shots))
  } finally {
    await browser.close()
  }
  const { size } = statSync(out)
  console.log(`${out}: ${size} bytes`)
  if (size > BYTES_MAX) throw new Error(`the picture has ${size} bytes, more than ${BYTES_MAX}`)
}

/** What happens, in order. */
async function play(page, [ann, bob], shoot) {
  const enter = async (frame, nick) => {
    await frame.fill('#nick', nick)
    await frame.click('#hello-form button')
    await frame.waitForSelector(`#people :text("${nick} (you)")`)
  }
  const say = async (frame, text) => {
    await frame.fill('#text', text)
    await frame.click('#send')
    for (const each of [ann, bob]) await each.waitForSelector(`.bubble:text("${text}")`)
  }
  const terminal = page.locator('#terminal')
  const print = async (text) => {
    await terminal.evaluate((element, text) => { element.append(text); element.scrollTop = element.scrollHeight }, text)
  }
  const command = async (program, args, shown, seconds, then) => {
    await print(`$ ${shown}`)
    await shoot(1.4)
    const output = execFileSync(program === 'broadgate' ? resolve(broadgate) : program, args, { encoding: 'utf8', cwd: dir })
    await print(`\n${output.trimEnd()}\n`)
    await then?.()
    await shoot(seconds)
  }

  await enter(ann, 'ann')
  await enter(bob, 'bob')
  await ann.waitForSelector('#people :text("bob")')
  await shoot(1.8)
  await say(ann, 'Hello from gateway-1')
  await shoot(1.6)
  await say(bob, 'Hi ann, I am on the other one')
  await shoot(1.8)
  const body = '{"to": {"groups": ["lobby"]}, "text": "hello, lobby"}'
  await command('curl', ['-s', `http://127.0.0.1:7200/v1/Send`, '-H', 'Content-Type: application/json', '-d', body],
    `curl http://127.0.0.1:7200/v1/Send -H 'Content-Type: application/json' \\\n    -d '${body}'`, 3,
    async () => { for (const each of [ann, bob]) await each.waitForSelector('.outside :text("hello, lobby")') })
  await command('broadgate', ['roster', 'lobby'], 'broadgate roster lobby', 2.4)
  await command('broadgate', ['kick', '--uid', 'bob', '--code', '4001', '--reason', 'see you'],
    "broadgate kick --uid bob --code 4001 --reason 'see you'", 3.6,
    async () => {
      await bob.waitForSelector('.note.bad')
      await ann.waitForSelector('.note:text("bob left")')
    })
}

/** The page that shows everything. */
function stage() {
  const window = (url) => `<section><header><i></i><i></i><i></i><span>${url}</span></header>
    <img alt=""></section>`
  return `<!doctype html><meta charset="utf-8"><style>
    * { box-sizing: border-box; margin: 0; }
    body { width: ${WIDTH}px; height: ${HEIGHT}px; background: #dfe3ee; padding: 12px; font: 14px system-ui, "DejaVu Sans", sans-serif; }
    main { display: flex; gap: 16px; }
    section { width: ${Math.round(FRAME.width * FRAME.scale)}px; border-radius: 10px; overflow: hidden; background: #fff; box-shadow: 0 2px 10px rgb(20 24 50 / 18%); }
    header { height: 34px; display: flex; align-items: center; gap: 7px; padding: 0 12px; background: #eceef5; }
    header i { width: 11px; height: 11px; border-radius: 50%; background: #c3c8d8; }
    header span { margin-left: 10px; padding: 3px 14px; border-radius: 9px; background: #fff; color: #333a52; flex: 1; }
    img { display: block; width: 100%; height: ${Math.round(FRAME.height * FRAME.scale)}px; }
    #terminal { margin-top: 14px; height: 234px; padding: 14px 18px; border-radius: 10px; background: #171a24; color: #dfe4f3; overflow: hidden;
      font: 14px/1.42 "DejaVu Sans Mono", "Liberation Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; box-shadow: 0 2px 10px rgb(20 24 50 / 18%); }
  </style><main>${PAGES.map(window).join('')}</main><pre id="terminal"></pre>`
}

/** Every picture for its time, again and again; the last one for readers who want no motion. */
function svg(shots) {
  const total = shots.reduce((sum, shot) => sum + shot.seconds, 0)
  let from = 0
  const image = (shot, more) =>
    `<image width="${WIDTH}" height="${HEIGHT}" ${more}href="data:image/webp;base64,${shot.data}"/>`
  const rules = []
  const images = shots.map((shot, index) => {
    const [start, end] = [from, (from += shot.seconds)].map((at) => ((at / total) * 100).toFixed(2))
    if (index === shots.length - 1) return ''
    const before = index === 0 ? '' : `0%,${(start - 0.01).toFixed(2)}%{visibility:hidden}`
    rules.push(`@keyframes s${index}{${before}${start}%,${(end - 0.01).toFixed(2)}%{visibility:visible}${end}%,100%{visibility:hidden}}`)
    rules.push(`.s${index}{animation-name:s${index}}`)
    return image(shot, `class="s s${index}" `)
  })
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img">
<title>Two browsers on two gateways, and commands in a terminal that reach both</title>
<style>.s{visibility:hidden}@media (prefers-reduced-motion:no-preference){.s{animation:${total.toFixed(1)}s step-end infinite}${rules.join('')}}</style>
${image(shots.at(-1), '')}
${images.join('\n')}
</svg>
`
}
