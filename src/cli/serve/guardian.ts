import type { Server } from '../../index.js'
import type { Output } from '../output/output.js'

/** Tells what is heard of the guardian of a server, if it has one. */
export function tellOfGuardian(server: Server, output: Output): void {
  if (server.guardian === undefined) return
  const there = (pid: number) =>
    output.tell(
      'info',
      { event: 'guardian', pid },
      `Guardian: process ${pid} serves guests while this one cannot`,
    )
  const { pid } = server.guardian
  if (pid !== undefined) there(pid)
  server.on('guardian', there)
  server.on('guardianTrouble', ({ code, message }) => {
    output.tell('warn', { event: 'guardian-trouble', code }, message)
  })
  server.on('guarded', (id) => {
    output.tell('debug', { event: 'guarded', id }, `The guest ${id} is guarded`)
  })
  server.on('unguarded', (id, { code, message }) => {
    const text = `The guest ${id} has no guardian: ${message}`
    output.tell('warn', { event: 'unguarded', id, code }, text)
  })
}
