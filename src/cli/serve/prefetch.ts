import { several, whole } from '../../numbers.js'
import type { Guest, PrefaultReport, Trace, UffdError } from '../../index.js'
import type { Output } from '../output/output.js'

/**
 * Installs the pages of a trace, or only reads them into the host's memory, while the guest's own
 * faults are served; tells what came of it.
 */
export async function prefetchInto(
  guest: Guest,
  number: number,
  trace: Trace,
  mode: 'install' | 'fetch' | undefined,
  output: Output,
): Promise<PrefaultReport | undefined> {
  const { pageSize } = trace
  if (pageSize !== guest.pageSize) {
    output.tell(
      'warn',
      { event: 'prefetch', guest: number, pageSize },
      `Guest ${number} is not prefetched: the trace has pages of ${pageSize} bytes, and the guest ` +
        `has pages of ${guest.pageSize}`,
    )
    return undefined
  }
  const ahead = mode === 'fetch' ? guest.readAhead(trace) : guest.prefault(trace)
  return await tellPrefetch(ahead, number, output)
}

/** Tells what came of a prefetch, and gives it back. */
export async function tellPrefetch(
  prefetched: Promise<PrefaultReport>,
  number: number,
  output: Output,
): Promise<PrefaultReport | undefined> {
  try {
    const report = await prefetched
    const { requested, installed, fetched, present, removed, failed, skipped } = report
    output.tell(
      failed > 0 ? 'warn' : 'info',
      { event: 'prefetch', guest: number, ...report },
      `Guest ${number}: prefetched ${whole(installed + fetched)} of ${several(requested, 'page')}; ` +
        `${whole(present)} were present, ${whole(removed)} removed, ${whole(failed)} failed, ` +
        `${whole(skipped)} skipped`,
    )
    return report
  } catch (error) {
    const { code, message } = error as UffdError
    const over = code === 'ERR_UFFD_GUEST_ENDED'
    const facts = { event: 'prefetch', guest: number, code }
    output.tell(over ? 'info' : 'warn', facts, `Guest ${number} is not prefetched: ${message}`)
    return undefined
  }
}
