import type { Server } from '../../index.js'
import { controlSuffix } from '../control/options.js'
import type { Output } from '../output/output.js'
import { off, type ServingValues } from './options.js'

/** Ends the command as a signal would. */
export type Stop = (signal: NodeJS.Signals, by?: 'control') => void

/** Lets the server be controlled. Where nobody asked for that, its guests come first. */
export async function openControl(
  server: Server,
  values: ServingValues,
  stop: Stop,
  output: Output,
): Promise<void> {
  const { control } = values
  if (control === off) return
  const controlled = {
    stop: (leavesGuests: boolean) => stop(leavesGuests ? 'SIGUSR2' : 'SIGTERM', 'control'),
    endsProcess: true,
  }
  try {
    const at = control ?? `${server.socket}${controlSuffix}`
    const { path } = await server.controlBy(at, controlled)
    output.tell('debug', { event: 'control', path }, `Controlled at ${path}`)
  } catch (error) {
    if (control !== undefined) throw error
    const { code, message } = error as { code?: string; message: string }
    const text = `status, dump and stop cannot reach this server: ${message}`
    output.tell('warn', { event: 'no-control', code }, text)
  }
}
