import { orAborted } from '../abort.js'
import { UffdError } from '../errors.js'
import { type RequestOptions } from '../firecracker/deadline.js'
import { type SnapshotTarget } from './pause-and-snapshot-options.js'

/**
 * Resolves when the handler of a paused microVM is quiet: no fault in hand, no event unread, and
 * nothing on its way. The vCPUs stand still, but Firecracker's devices may have a request of the
 * guest in hand, such as free pages to give back. So it is asked for its state, which its one
 * thread answers when it gets round to it, between two looks at the handler; if the second finds
 * a REMOVE that the first did not, it is asked again.
 */
export async function untilQuiet(
  { client, guest }: SnapshotTarget,
  settleMs: number,
  { signal, timeoutMs }: RequestOptions,
): Promise<void> {
  await within(settleMs, signal, async (ending) => {
    let before: number | undefined
    for (;;) {
      await guest.settle({ signal: ending })
      const { removeEvents } = await guest.stats()
      if (removeEvents === before) return
      before = removeEvents
      const { state } = await client.instanceInfo({ signal: ending, timeoutMs })
      if (state !== 'Paused') {
        throw new UffdError(
          'ERR_UFFD_PAUSE_AND_SNAPSHOT_SETTLE',
          `the microVM is ${JSON.stringify(state)} and not paused; who resumed it?`,
        )
      }
    }
  })
}

async function within<T>(
  settleMs: number,
  signal: AbortSignal | undefined,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ending = new AbortController()
  const late = new UffdError(
    'ERR_UFFD_PAUSE_AND_SNAPSHOT_SETTLE',
    `the handler did not settle within ${settleMs} ms; is the source of its pages slow? A longer ` +
      'deadline is the option timeouts.settleMs',
  )
  const timer = setTimeout(() => ending.abort(late), settleMs)
  const onAbort = () => ending.abort(signal?.reason)
  signal?.addEventListener('abort', onAbort, { once: true })
  try {
    return await orAborted('Settling', ending.signal, work(ending.signal))
  } catch (error) {
    throw ending.signal.aborted ? ending.signal.reason : error
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener('abort', onAbort)
  }
}
