import { UffdError } from '../errors.js'
import { Trace } from './trace.js'

/** The trace to prefetch, which has to be one of this snapshot. */
export async function traceFor(
  given: Trace | string | undefined,
  snapshot: string,
): Promise<Trace | undefined> {
  if (typeof given === 'string') return await Trace.load(given, { snapshot })
  if (given === undefined || (await given.belongsTo(snapshot))) return given
  throw new UffdError(
    'ERR_UFFD_TRACE_WRONG_SNAPSHOT',
    `The trace was recorded on another snapshot than ${snapshot}: record a trace of this one, or ` +
      `use the snapshot it belongs to`,
  )
}
