import { FirecrackerError } from './errors.js'

/** How a single request may be ended early. */
export interface RequestOptions {
  /** Ends the request when it fires. What Firecracker does with it then is unknown. */
  readonly signal?: AbortSignal | undefined
  /**
   * The deadline in milliseconds until the whole answer is there. A call that has to
   * ask for the version first gives it to each of the two requests.
   * @default the client's
   */
  readonly timeoutMs?: number | undefined
}

/**
 * Runs `work` under a deadline, the caller's signal and that of the client. The
 * error tells which of them it was; nothing is left behind on any of them.
 */
export async function underDeadline<T>(
  request: string,
  timeoutMs: number,
  signals: { readonly user: AbortSignal | undefined; readonly client: AbortSignal },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ending = new AbortController()
  const timer = setTimeout(() => ending.abort(timedOut(request, timeoutMs)), timeoutMs)
  const onUser = () => ending.abort(aborted(request, signals.user?.reason))
  const onClient = () => ending.abort(closed(request))
  signals.user?.addEventListener('abort', onUser, { once: true })
  signals.client.addEventListener('abort', onClient, { once: true })
  try {
    if (signals.client.aborted) onClient()
    if (signals.user?.aborted) onUser()
    ending.signal.throwIfAborted()
    return await work(ending.signal)
  } catch (error) {
    throw ending.signal.aborted ? ending.signal.reason : error
  } finally {
    clearTimeout(timer)
    signals.user?.removeEventListener('abort', onUser)
    signals.client.removeEventListener('abort', onClient)
  }
}

function timedOut(request: string, timeoutMs: number): FirecrackerError {
  return new FirecrackerError(
    'ERR_UFFD_FIRECRACKER_TIMEOUT',
    request,
    `no answer within ${timeoutMs} ms. Firecracker may still carry it out: look at its state ` +
      'before asking again, or end its process. A longer deadline is the option timeoutMs',
  )
}

function aborted(request: string, cause: unknown): FirecrackerError {
  return new FirecrackerError(
    'ERR_UFFD_FIRECRACKER_ABORTED',
    request,
    'aborted by its signal. Firecracker may still carry it out',
    { cause },
  )
}

function closed(request: string): FirecrackerError {
  return new FirecrackerError(
    'ERR_UFFD_FIRECRACKER_CLOSED',
    request,
    'the client was closed; make a new one',
  )
}
