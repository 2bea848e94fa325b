// A cluster of three gateways with a secret, two of which serve the dashboard, and some clients.
import { execFileSync } from 'node:child_process'
import { mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { createRequire } from 'node:module'
import { run } from '../clients/node/lib/processes.js'
import { until } from '../clients/node/lib/wait.js'

const WebSocket = createRequire(new URL('../clients/node/package.json', import.meta.url))('ws')
export const SECRET = 'a-secret-of-the-dashboard-suite-0123456789'
const broadgate = path.resolve(process.env.BROADGATE)

const isFree = (port) => new Promise((resolve) => {
  const server = net.createServer()
  server.once('error', () => resolve(false))
  server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
})

/** Below those that the system gives to outgoing connections. */
async function freePorts(count) {
  const free = []
  while (free.length < count) {
    const port = 12_000 + Math.floor(Math.random() * 20_000)
    if (!free.includes(port) && await isFree(port)) free.push(port)
  }
  return free
}

export class Cluster {
  constructor(work) {
    this.work = work
    this.running = new Map()
    this.sockets = []
  }

  static async start() {
    const work = path.resolve('target/dashboard/cluster')
    rmSync(work, { recursive: true, force: true })
    mkdirSync(work, { recursive: true })
    const cluster = new Cluster(work)
    const ports = await freePorts(16)
    cluster.register = ports[0]
    cluster.gateways = [0, 1, 2].map((n) => ({ name: `gateway-${n + 1}`, internal: ports[1 + n], client: ports[4 + n], dashboard: [ports[7], ports[10], ports[8]][n], tls: n === 1 }))
    cluster.own = ports[9]
    cluster.ownTls = ports[11]
    cluster.spare = ports.slice(12)
    execFileSync(broadgate, ['certs', 'ca', '--dir', path.join(work, 'certs')], { cwd: work, stdio: 'ignore' })
    execFileSync(broadgate, ['certs', 'listener', 'ops', '--host', 'localhost', '--host', '127.0.0.1', '--dir', path.join(work, 'certs')], { cwd: work, stdio: 'ignore' })
    cluster.tlsFlags = ['--dashboard-tls-cert', path.join(work, 'certs/ops.pem'), '--dashboard-tls-key', path.join(work, 'certs/ops.key')]
    const app = (id) => `[[apps]]\nid = "${id}"\nraw = true\nservice = ""\nconnections_max = 1000\n[[apps.keys]]\nkey = "${id}-key"\nsecret = "${id}-secret-of-the-dashboard"\n`
    writeFileSync(path.join(work, 'apps.toml'), app('shop') + app('vault') + app('spare'), { mode: 0o600 })
    writeFileSync(path.join(work, 'gateway.toml'), `[gateway]\ntokens_file = "${path.join(work, 'tokens.toml')}"\n[[gateway.groups]]\napp = "shop"\npattern = "orders.*"\nlast_value_time = "5m"\nhistory_messages = 100\nhistory_time = "5m"\n`, { mode: 0o600 })
    cluster.tokens = {
      reader: cluster.token('rita', '--role', 'reader'),
      brief: cluster.token('brief', '--role', 'reader'),
      spare: cluster.token('sue', '--role', 'reader', '--app', 'spare'),
      shop: cluster.token('sam', '--role', 'operator', '--app', 'shop'),
    }
    try {
      cluster.spawn('register', ['register', '--bind', `127.0.0.1:${cluster.register}`])
      for (const gateway of cluster.gateways) cluster.startGateway(gateway)
      cluster.spawn('chat-1', ['worker', 'chat', '--name', 'chat-1', '--register', `127.0.0.1:${cluster.register}`])
      await until('the cluster is whole', async () => {
        const status = await cluster.call('Status', {})
        const ready = status.view.members.filter((member) => member.state === 'MEMBER_STATE_READY')
        return ready.length === 4 && status.gateways.length === 3 && status.workers[0]?.gateways === 3
      }, 60_000)
    } catch (error) {
      console.log(cluster.logs())
      await cluster.stop()
      throw error
    }
    return cluster
  }

  /** A token that the gateways know once they have started. */
  token(name, ...more) {
    const file = path.join(this.work, 'tokens.toml')
    return execFileSync(broadgate, ['token', 'new', name, ...more, '--file', file], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], cwd: this.work, env: { ...process.env, HOME: this.work } }).trim().split('\n')[0]
  }

  startGateway({ name, internal, client, dashboard, tls }) {
    this.spawn(name, ['gateway', '--config', path.join(this.work, 'gateway.toml'), '--name', name, '--register', `127.0.0.1:${this.register}`, '--internal-bind', `127.0.0.1:${internal}`,
      '--client-bind', `127.0.0.1:${client}`, '--raw-app', 'default', '--apps', path.join(this.work, 'apps.toml'),
      ...(dashboard ? ['--dashboard-bind', `127.0.0.1:${dashboard}`] : []), ...(tls ? this.tlsFlags : [])])
  }

  spawn(name, args, stdout) {
    const log = openSync(path.join(this.work, `${name}.log`), 'a')
    const child = run(broadgate, args, { cwd: this.work, stdio: ['ignore', stdout ?? log, log], env: { ...process.env, BROADGATE_SECRET: SECRET, HOME: this.work, XDG_CONFIG_HOME: this.work } })
    this.running.set(name, child)
    return child
  }

  /** `broadgate dashboard`; gives its link. */
  async dashboard(name = 'dashboard', port = this.own, addr = this.gateways[0].internal, more = []) {
    const child = this.spawn(name, ['dashboard', '--addr', `127.0.0.1:${addr}`, '--bind', `127.0.0.1:${port}`, '--json', ...more], 'pipe')
    let text = ''
    child.stdout.on('data', (chunk) => { text += chunk })
    return until('the dashboard prints its link', () => JSON.parse(text).url)
  }

  kill(name, signal = 'SIGKILL') {
    this.running.get(name).kill(signal)
  }

  async ended(name) {
    await until(`${name} has ended`, () => this.running.get(name).ended)
  }

  async call(call, body, gateway = this.gateways[0], worker) {
    const answer = await fetch(`http://127.0.0.1:${gateway.internal}/v1/${call}`, {
      method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${SECRET}`, ...(worker ? { 'broadgate-worker': worker } : {}) }, body: JSON.stringify(body),
      signal: AbortSignal.timeout(10_000),
    })
    if (!answer.ok) throw new Error(`${call}: ${answer.status} ${await answer.text()}`)
    return answer.json()
  }

  /** A cluster of one gateway that has no app, no group and no worker; gives the port of its dashboard. */
  async startEmpty() {
    const [register, internal, client, dashboard] = this.spare
    this.spawn('register-2', ['register', '--bind', `127.0.0.1:${register}`])
    this.spawn('empty', ['gateway', '--name', 'empty', '--register', `127.0.0.1:${register}`, '--internal-bind', `127.0.0.1:${internal}`, '--client-bind', `127.0.0.1:${client}`, '--dashboard-bind', `127.0.0.1:${dashboard}`])
    await until('the empty cluster is there', async () => (await this.call('Status', {}, { internal })).view?.members.some((member) => member.state === 'MEMBER_STATE_READY'), 30_000)
    return dashboard
  }

  /** Takes a token out of the file that the gateways read. */
  forget(name) {
    execFileSync(broadgate, ['token', 'remove', name, '--file', path.join(this.work, 'tokens.toml')], { cwd: this.work, stdio: 'ignore', env: { ...process.env, HOME: this.work } })
  }

  /** A client of an app that is in a group, bound to a uid. */
  async client(gateway, uid, group, app = 'shop') {
    const socket = new WebSocket(`ws://127.0.0.1:${gateway.client}/ws/${app}`)
    this.sockets.push(socket)
    socket.received = []
    socket.on('message', (data) => socket.received.push(String(data)))
    const opened = new Promise((resolve, reject) => { socket.once('open', resolve); socket.once('error', reject) })
    socket.on('close', (code) => { socket.code = code })
    await opened
    socket.on('error', () => {})
    // Those that came before are bound already.
    const all = { of: { app, all: true }, fields: ['CLIENT_FIELD_UID'] }
    const own = await until('the client is listed', async () => (await this.call('ListClients', all)).clients.find((one) => !one.uid))
    socket.id = own.client_id
    await this.call('Bind', { app, client_id: socket.id, uid })
    await this.call('Join', { app, clients: [socket.id], groups: [group] })
    return socket
  }

  logs() {
    return [...this.running.keys()].map((name) => `--- ${name}\n${readFileSync(path.join(this.work, `${name}.log`), 'utf8').slice(-1500)}`).join('\n')
  }

  async stop() {
    for (const socket of this.sockets) socket.terminate()
    for (const child of this.running.values()) {
      child.kill('SIGCONT')
      child.kill('SIGKILL')
    }
    await Promise.all([...this.running.keys()].map((name) => this.ended(name)))
  }
}

