// The backend's library, pointed at a gateway.
import PusherServer from 'pusher'
import { MASTER_KEY, keyOf, secretOf } from './cluster.js'

export function sdk(at, app, options = {}) {
  return new PusherServer({
    appId: app,
    key: keyOf(app),
    secret: secretOf(app),
    host: '127.0.0.1',
    port: String(at.port),
    useTLS: false,
    encryptionMasterKeyBase64: MASTER_KEY,
    ...options,
  })
}

/** What a GET answers, parsed. */
export async function fetched(server, path, params = {}) {
  return (await server.get({ path, params })).json()
}
