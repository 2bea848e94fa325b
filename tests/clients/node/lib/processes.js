// Processes of the checks: they are ended by their ids whenever the driver ends.
import { spawn } from 'node:child_process'

const running = new Set()

/** Starts a process; `ended` of what is given says how it ended. */
export function run(command, args, options) {
  const child = spawn(command, args, options)
  running.add(child)
  const over = (how) => {
    child.ended = how
    running.delete(child)
  }
  child.once('exit', (code, signal) => over({ code, signal }))
  child.once('error', (error) => over({ code: error.message }))
  return child
}

process.on('exit', () => { for (const child of running) child.kill('SIGKILL') })
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(130))
