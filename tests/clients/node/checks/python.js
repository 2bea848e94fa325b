// The backend's library for Python: ../../python/sdk.py calls, and pusher-js here hears.
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fence } from '../lib/client.js'
import { keyOf, secretOf } from '../lib/cluster.js'
import { Skipped } from '../lib/suite.js'
import { same } from '../lib/wait.js'

const python = process.env.CLIENTS_PYTHON
const APP = '1001'
const script = path.join(import.meta.dirname, '../../python/sdk.py')

export default [
  {
    name: 'trigger, batch, exclusion, reading, refusals, users',
    async run(t) {
      if (!python || !fs.existsSync(python)) throw new Skipped('Python or its packages are not available')
      const channel = t.name('presence-python')
      const clients = ['ann', 'bob'].map((user, n) => t.client({ app: APP, user, at: t.at(n) }))
      for (const client of clients) await client.subscribed(channel)
      const user = t.name('pia')
      const hers = await t.client({ app: APP, user, at: t.at(1) }).signedIn()
      const place = {
        port: t.apart.port, other_port: t.at(0).port, app: APP, key: keyOf(APP), secret: secretOf(APP),
        channel, user, socket_id: clients[1].socketId,
      }
      const lines = (await run(python, [script, JSON.stringify(place)])).trim().split('\n').map((line) => JSON.parse(line))
      const failed = lines.filter((line) => line.error)
      if (failed.length > 0) throw new Error(failed.map(({ name, error }) => `${name}: ${error}`).join('\n    '))
      await fence(t.sdk(APP), channel, clients)
      const all = [
        ['python-one', { n: 1, text: 'grüße' }], ['python-two', 'plain'], ['python-not-you', {}],
        ['python-batch', { n: 1 }], ['python-batch', { n: 2 }],
      ]
      const heard = (client) => client.events(channel).filter(([event]) => event.startsWith('python-'))
      same('what ann heard', heard(clients[0]), all)
      same('what bob heard', heard(clients[1]), all.filter(([event]) => event !== 'python-not-you'))
      same('what pia heard', (await hers.gets('python-user')).data, { n: 1 })
      return lines.map((line) => line.note).filter(Boolean).join('\n')
    },
  },
]

function run(command, args) {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: 60_000 }, (error, stdout, stderr) =>
      (error ? reject(new Error(`${error.message}\n${stdout}\n${stderr}`)) : resolve(stdout)))
  })
}
