import { aborted } from '../abort.js'
import { hugePageSize } from '../huge-pool.js'
import { checkListenOptions, type CheckedOptions, type ListenOptions } from './options.js'
import { namingCaller } from '../stack.js'
import { traceFor } from '../trace/for-snapshot.js'
import { type Trace } from '../trace/trace.js'
import { Server } from './server.js'

/**
 * Serves guests of one snapshot on one socket. Resolves when the socket accepts: from then on
 * Firecracker can be told to load the snapshot.
 *
 * @throws {UffdError} with a code that says what is wrong: the option, the snapshot, the socket.
 */
export async function listen(listenOptions: ListenOptions): Promise<Server> {
  return await listenAsChecked(checkListenOptions(listenOptions))
}

/** The same with options that were checked. */
export async function listenAsChecked(checked: CheckedOptions): Promise<Server> {
  const { signal } = checked
  const what = `Listening on ${checked.native.socket}`
  if (signal?.aborted) throw aborted(what, signal)
  const trace = await traceFor(checked.prefetch, checked.native.snapshot)
  // A server that is made now would not hear of it any more.
  if (signal?.aborted) throw aborted(what, signal)
  const server = new Server(expecting(checked, trace), trace)
  try {
    await namingCaller(server.listening())
  } catch (error) {
    await server.gone()
    throw signal?.aborted ? aborted(what, signal) : error
  }
  if (!signal?.aborted) {
    server.isHad()
    return server
  }
  await server.gone()
  throw aborted(what, signal)
}

/** The guests of a trace of 2 MiB pages are likely to have such pages again. */
function expecting(checked: CheckedOptions, trace: Trace | undefined): CheckedOptions {
  if (trace?.pageSize !== hugePageSize) return checked
  return { ...checked, native: { ...checked.native, expectHugePages: true } }
}
