import { UffdError } from '../errors.js'
import { type Guest } from '../guest/guest.js'
import { SavedTrace } from '../saved-trace.js'
import { Trace } from '../trace.js'

/** The trace to prefetch, which has to be one of this snapshot. */
export async function traceFor(
  given: SavedTrace | string | undefined,
  snapshot: string,
): Promise<SavedTrace | undefined> {
  if (given === undefined) return undefined
  if (typeof given === 'string') return await SavedTrace.load(given, { snapshot })
  const { pageSize } = given.snapshot
  const nothing = Trace.of(new BigUint64Array())
  const ofSnapshot = await SavedTrace.record(nothing, {
    snapshot,
    pageSize: pageSize as 4096 | 2097152,
  })
  // Only traces of one snapshot can be merged.
  return ofSnapshot.merge('union', [given])
}

/** Pages of another size would be other pages. */
export function requirePageSize(trace: SavedTrace, guest: Guest): void {
  const { pageSize } = trace.snapshot
  if (pageSize === guest.pageSize) return
  throw new UffdError(
    'ERR_UFFD_TRACE_WRONG_SNAPSHOT',
    `the trace has pages of ${pageSize} bytes, and the guest has pages of ${guest.pageSize}`,
  )
}
