// In front of all gateways, as a plain round robin without sticky sessions is: of connections, or of single requests.
import http from 'node:http'
import net from 'node:net'

/** Gives each connection to the next gateway that takes it. `next` is the number of the gateway whose turn it is. */
export async function roundRobin(t) {
  const { gateways } = t.cluster
  const robin = { next: 0 }
  const sockets = new Set()
  const proxy = net.createServer((client) => {
    sockets.add(client)
    client.on('error', () => {}).on('close', () => sockets.delete(client))
    const dial = (left) => {
      const gateway = net.connect(gateways[robin.next++ % gateways.length].port, '127.0.0.1')
      let connected = false
      sockets.add(gateway)
      gateway.on('connect', () => {
        connected = true
        client.pipe(gateway).pipe(client)
      }).on('error', () => {}).on('close', () => {
        sockets.delete(gateway)
        if (!connected && left > 1 && !client.destroyed) dial(left - 1)
        else client.destroy()
      })
      client.on('close', () => gateway.destroy())
    }
    dial(gateways.length)
  })
  await new Promise((done) => proxy.listen(0, '127.0.0.1', done))
  t.onEnd(() => { sockets.forEach((socket) => socket.destroy()); proxy.close() })
  robin.url = `http://127.0.0.1:${proxy.address().port}`
  return robin
}

/** Gives each request to the next gateway. `methods` are those of all requests so far. */
export async function requestRobin(t) {
  const { gateways } = t.cluster
  let turn = 0
  const next = () => gateways[turn++ % gateways.length].port
  const methods = []
  const sockets = new Set()
  const proxy = http.createServer((request, answer) => {
    const { method, url: path, headers } = request
    methods.push(method)
    const asked = http.request({ host: '127.0.0.1', port: next(), method, path, headers, agent: false }, (came) => {
      answer.writeHead(came.statusCode, came.headers)
      came.pipe(answer)
    })
    asked.on('error', () => answer.destroy())
    request.pipe(asked)
  })
  proxy.on('upgrade', (request, client, head) => {
    const gateway = net.connect(next(), '127.0.0.1', () => {
      const lines = request.rawHeaders.map((text, n) => text + (n % 2 ? '\r\n' : ': ')).join('')
      gateway.write(`${request.method} ${request.url} HTTP/1.1\r\n${lines}\r\n`)
      gateway.write(head)
      client.pipe(gateway).pipe(client)
    })
    for (const [one, other] of [[client, gateway], [gateway, client]]) {
      sockets.add(one)
      one.on('error', () => {}).on('close', () => { sockets.delete(one); other.destroy() })
    }
  })
  await new Promise((done) => proxy.listen(0, '127.0.0.1', done))
  t.onEnd(() => { sockets.forEach((socket) => socket.destroy()); proxy.closeAllConnections(); proxy.close() })
  return { url: `http://127.0.0.1:${proxy.address().port}`, methods }
}
