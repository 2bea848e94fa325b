// A register and gateways as processes of their own, started from one generated TOML and ended by id.
import fs from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import path from 'node:path'
import { run } from './processes.js'
import { until } from './wait.js'

// Each app has one key and secret, named after it. The last one has webhooks.
const APPS = [
  ['shop', ''],
  ['reverb', 'compat = "reverb"'],
  ['quiet', 'client_events = false'],
  ['closed', 'enabled = false'],
  ['counting', 'subscription_count = true'],
  ['brisk', 'activity_timeout = "1s"\npong_timeout = "1s"'],
  ['strict', 'authorized_within = "1s"'],
  ['small', 'connections_max = 2'],
  ['sealed', 'tls_only = true'],
  ['homely', 'origins = ["https://*.example.com", "localhost"]'],
  ['behind', 'path_prefix = "/sockets"'],
  // The library for Python takes only ids of digits.
  ['1001', ''],
  // Its backend is a stub of each check's own.
  ['socketio', 'socketio = true\n[apps.auth]\nurl = "http://127.0.0.1:BACKEND/broadcasting/auth"'],
  // Ably's libraries publish here.
  ['ably', ''],
  ['hooked', ''],
]

/** Base64 of the 32 bytes with which backends encrypt; the server never hears of them. */
export const MASTER_KEY = Buffer.alloc(32, 'clients').toString('base64')

export const keyOf = (app) => `${app}-key`
export const secretOf = (app) => `${app}-secret-of-the-clients-suite`

/** How long after a crash the cluster is right again: the lease and two link timeouts. */
export const RECOVERY_SECONDS_MAX = 5 + 2 * 2

export class Cluster {
  /** `more` has further settings of apps, by their ids.
   * @param {{executable: string, gateways: number, work: string, more?: Record<string, string>}} how */
  static async start({ executable, gateways, work, more = {} }) {
    fs.rmSync(work, { recursive: true, force: true })
    fs.mkdirSync(work, { recursive: true })
    const ports = await freePorts(4 + 3 * gateways)
    const cluster = new Cluster()
    Object.assign(cluster, { executable, work, running: new Map(), registerPort: ports[0], hookPort: ports.at(-1), backendPort: ports.at(-3) })
    const tls = ports.at(-2)
    cluster.gateways = Array.from({ length: gateways }, (_, n) => ({
      name: `gateway-${n + 1}`,
      internal: ports[1 + 3 * n],
      port: ports[2 + 3 * n],
      metrics: ports[3 + 3 * n],
      tls,
    }))
    cluster.config = path.join(work, 'broadgate.toml')
    fs.writeFileSync(cluster.config, toml(ports[0], ports.at(-1), ports.at(-3), gateways === 1 ? { port: ports[2], tls } : undefined, more))
    try {
      cluster.spawn('register', ['register'])
      for (const gateway of cluster.gateways) cluster.startGateway(gateway)
      await until(`a cluster of ${gateways} is ready`, () => cluster.isWhole(), 60_000)
    } catch (error) {
      error.logs = cluster.logTails()
      await cluster.stop()
      throw error
    }
    return cluster
  }

  startGateway(gateway) {
    this.spawn(gateway.name, [
      'gateway', '--name', gateway.name,
      '--internal-bind', `127.0.0.1:${gateway.internal}`,
      ...(this.gateways.length === 1 ? [] : ['--client-bind', `127.0.0.1:${gateway.port}`]),
      '--metrics-bind', `127.0.0.1:${gateway.metrics}`,
    ])
  }

  spawn(name, args) {
    const log = fs.openSync(path.join(this.work, `${name}.log`), 'a')
    const child = run(this.executable, [...args, '--config', this.config], { stdio: ['ignore', log, log] })
    fs.closeSync(log)
    this.running.set(name, child)
    child.once('exit', () => { if (this.running.get(name) === child) this.running.delete(name) })
  }

  /** Every gateway is ready and linked to all others. */
  async isWhole() {
    const expected = this.gateways.length
    const states = await Promise.all(this.gateways.map(async (gateway) => {
      const text = (await get(gateway.metrics, '/metrics')).body
      const ready = (await get(gateway.metrics, '/readyz')).status === 200
      return ready && metric(text, 'broadgate_gateway_peers') === expected - 1 && metric(text, 'broadgate_gateway_peers_unsynced') === 0
    }))
    return states.every(Boolean)
  }

  /** What a gateway counts. */
  async metric(gateway, name) {
    return metric((await get(gateway.metrics, '/metrics')).body, name)
  }

  /** Takes a process away without a word. */
  async kill(name) {
    const child = this.running.get(name)
    child.kill('SIGKILL')
    await until(`${name} is gone`, () => child.ended)
  }

  async stop() {
    const children = [...this.running.values()].reverse()
    for (const child of children) child.kill('SIGTERM')
    await until('the cluster ends', () => children.every((child) => child.ended), 20_000).catch(() => {
      for (const child of children) child.kill('SIGKILL')
    })
  }

  /** A panic would fail a later check, so it is reported by the check that caused it. */
  checkLogs() {
    for (const { name } of this.gateways) {
      const lines = fs.readFileSync(path.join(this.work, `${name}.log`), 'utf8').split('\n')
      const panic = lines.findIndex((line) => line.includes('panicked at'))
      if (panic >= 0) throw new Error(`expected: no panic\n    came:     ${name}: ${lines.slice(panic, panic + 2).join(' ')}`)
    }
  }

  logTails(lines = 8) {
    return ['register', ...this.gateways.map((gateway) => gateway.name)].map((name) => {
      const file = path.join(this.work, `${name}.log`)
      const text = fs.existsSync(file) ? fs.readFileSync(file, 'utf8').trimEnd() : ''
      return `--- ${name}\n${text.split('\n').slice(-lines).join('\n')}`
    }).join('\n')
  }
}

function toml(registerPort, hookPort, backendPort, alone, more) {
  const apps = APPS.map(([id, settings]) => appToml(id, `${settings.replace('BACKEND', backendPort)}\n${more[id] ?? ''}`))
  return `[cluster]
register = ["127.0.0.1:${registerPort}"]

[register]
bind = "127.0.0.1:${registerPort}"

${alone ? listeners(alone) : ''}
[gateway.stop]
ready_delay = "0s"
drain = "1s"
${apps.join('')}
[[apps.webhooks]]
url = "http://127.0.0.1:${hookPort}/hook"
events = ["channel_occupied", "channel_vacated", "member_added", "member_removed", "client_event", "cache_miss"]
`
}

/** For a single gateway; several share this file and get their ports as flags. */
const listeners = ({ port, tls }) => `
[[gateway.listeners]]
name = "web"
kind = "web"
bind = "127.0.0.1:${port}"

[[gateway.listeners]]
name = "tls"
kind = "web"
bind = "127.0.0.1:${tls}"
[[gateway.listeners.tls]]
cert = "${process.env.NODE_EXTRA_CA_CERTS}"
key = "${process.env.CLIENTS_TLS_KEY}"
`

/** An app as written to the file; its key follows from its name unless another is given. */
export const appToml = (id, settings = '', key = keyOf(id)) => `
[[apps]]
id = "${id}"
${settings}
[[apps.keys]]
key = "${key}"
secret = "${secretOf(id)}"
`

/** Free ports: all are bound at the same time, so that they differ. */
async function freePorts(count) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => resolve(server))
  })))
  const ports = servers.map((server) => server.address().port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

export { freePorts }

/** A plain request to this machine; no status is an error. */
export function get(port, target, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path: target, headers, agent: false, timeout: 10_000 }, (answer) => {
      let body = ''
      answer.setEncoding('utf8').on('data', (chunk) => { body += chunk })
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, body }))
    })
    request.on('timeout', () => request.destroy(new Error(`no answer to ${target} within 10 s`)))
    request.on('error', reject)
  })
}

function metric(text, name) {
  const line = text.split('\n').find((line) => line.startsWith(`${name} `))
  return line === undefined ? undefined : Number(line.slice(name.length + 1))
}
