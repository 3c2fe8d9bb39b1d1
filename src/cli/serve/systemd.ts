import type { Server } from '../../index.js'
import { micros, several } from '../../numbers.js'
import type { Output } from '../output/output.js'

/** Tells what the service manager wants and keeps, if it started this process. */
export function tellOfSystemd(server: Server, output: Output): void {
  const { systemd, socket } = server
  if (systemd === undefined) return
  const { isTold, storeMax, watchdogMs, unusedSockets } = systemd
  const parts = [
    isTold ? 'is told when this is ready' : 'is told nothing',
    storeMax === undefined
      ? 'has not said how many descriptors it keeps'
      : `keeps up to ${several(storeMax, 'descriptor')}`,
  ]
  if (watchdogMs !== undefined) {
    parts.push(`wants a sign of life every ${micros(watchdogMs * 1000)}`)
  }
  const text = `Service manager: ${parts.join(', ')}`
  output.tell('info', { event: 'systemd', ...systemd }, text)
  for (const path of unusedSockets) {
    const why =
      `Nobody accepts on ${path}, where the service manager listens for this process: have ` +
      `ListenStream= of its unit and --socket (${socket}) name the same path`
    output.tell('warn', { event: 'unused-socket', socket: path }, why)
  }
}
