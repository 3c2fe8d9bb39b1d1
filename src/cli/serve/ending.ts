import { setTimeout } from 'node:timers/promises'
import { type Server, UffdError } from '../../index.js'
import { requireCompanion } from '../arguments/companion.js'
import { UsageError } from '../arguments/usage-error.js'
import { several } from '../../numbers.js'
import type { Output } from '../output/output.js'
import type { ServingValues } from './options.js'

type Companions = readonly (readonly [keyof ServingValues, keyof ServingValues, string])[]

/** Refuses options that contradict each other, and those that would change nothing. */
export function checkServing(values: ServingValues): void {
  const need: Companions = [
    ['hand-over', 'state-dir', 'leaves guests in a state directory'],
    ['state-dir-wait', 'state-dir', 'waits for a state directory'],
    ['guardian', 'state-dir', 'serves the guests of a state directory'],
    ['guardian-cgroup', 'guardian', 'says how the guardian is started'],
    ['guardian-log', 'guardian', 'says how the guardian is started'],
  ]
  for (const [option, companion, does] of need) requireCompanion(values, option, companion, does)
  if (values.release && values['dirty-tracking'] === 'on') {
    throw new UsageError('--release would end the tracking of dirty pages: give one of both')
  }
}

/** Whether guests are left to others when this signal asks for the end. */
export const leavesGuests = (values: ServingValues, signal: unknown): boolean =>
  values['state-dir'] !== undefined &&
  (values['hand-over'] || values.guardian || signal === 'SIGUSR2')

/** Ends a server once, however often it is called, and says what becomes of its guests. */
export function endingOf(
  server: Server,
  values: ServingValues,
  ending: AbortSignal,
  output: Output,
): () => Promise<void> {
  let ended: Promise<void> | undefined
  return async () => {
    const leaves = leavesGuests(values, ending.reason)
    if (ended === undefined) server.serviceStops()
    ended ??= leaves ? leave(server, values['state-dir']!, output) : stop(server, output)
    await ended
  }
}

async function leave(server: Server, stateDir: string, output: Output): Promise<void> {
  const count = await handOver(server, output)
  if (count === undefined) return
  const guardian = server.guardian?.pid
  const whom = guardian === undefined ? 'the next server' : `its guardian, process ${guardian}`
  const text = `Left ${several(count, 'guest')} in ${stateDir} to ${whom}`
  output.tell('info', { event: 'handed-over', guests: count, stateDir, guardian }, text)
}

/** Leaves guests as soon as they can be left: until then they are served. */
async function handOver(server: Server, output: Output): Promise<number | undefined> {
  let told: string | undefined
  for (;;) {
    try {
      return await server.handOver()
    } catch (error) {
      if (!(error instanceof UffdError)) throw error
      const { code, message } = error
      if (code === 'ERR_UFFD_HAND_OVER') {
        output.tell('error', { event: 'ownerless', code }, message)
        return undefined
      }
      if (!code.startsWith('ERR_UFFD_GUARDIAN')) throw error
      const text = `Guests are served on, and left as soon as that can be: ${message}`
      if (code !== told) output.tell('warn', { event: 'not-handed-over', code }, text)
      told = code
      await setTimeout(tryAgainMs)
    }
  }
}

const tryAgainMs = 500

async function stop(server: Server, output: Output): Promise<void> {
  const count = server.guests.length
  await server.stop()
  if (count === 0) return
  const text = `Stopped ${several(count, 'guest')}: who still runs waits at the next page it misses`
  output.tell('info', { event: 'stopped', guests: count }, text)
}
