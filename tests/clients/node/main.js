// node main.js EXECUTABLE WORK [--only NAME]: see tests/clients/run.
import path from 'node:path'
import { parseArgs } from 'node:util'
import { Suite } from './lib/suite.js'

const GROUPS = ['connecting', 'channels', 'cache', 'whispers', 'users', 'presence', 'churn', 'counts', 'sdk', 'webhooks', 'python', 'echo', 'socketio', 'reverb', 'hostile', 'settings', 'browser', 'tls', 'ably', 'laravel', 'crash']

const { values, positionals } = parseArgs({ allowPositionals: true, options: { only: { type: 'string' } } })
const [executable, work] = positionals.map((it) => path.resolve(it))
const suite = new Suite({ executable, work, only: values.only })

const groups = {}
for (const group of GROUPS) groups[group] = (await import(`./checks/${group}.js`)).default

await suite.runSetting('one', 1, groups)
await suite.runSetting('three', 3, groups)
if (suite.rows.size === 0) {
  console.error(`no check's name has ${values.only} in it`)
  process.exit(2)
}
process.exit(suite.report() ? 0 : 1)
