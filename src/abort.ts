import { UffdError } from './errors.js'

/** The error for what was given up because its signal fired. */
export function aborted(what: string, signal: AbortSignal): UffdError {
  return new UffdError('ERR_UFFD_ABORTED', `${what} was aborted by its signal`, {
    cause: signal.reason,
  })
}

/** Settles as `work` does, or is rejected once the signal fires; the work itself goes on. */
export async function orAborted<T>(
  what: string,
  signal: AbortSignal | undefined,
  work: Promise<T>,
): Promise<T> {
  if (signal === undefined) return await work
  const given = new AbortController()
  try {
    return await Promise.race([
      work,
      new Promise<never>((_, reject) => {
        const abort = () => reject(aborted(what, signal))
        if (signal.aborted) return abort()
        signal.addEventListener('abort', abort, { once: true, signal: given.signal })
      }),
    ])
  } finally {
    given.abort()
  }
}

/** Does work with a signal that fires as the given one does, and never once the work is done. */
export async function whileAtWork<T>(
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const ending = new AbortController()
  const abort = () => ending.abort(signal.reason)
  if (signal.aborted) abort()
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await work(ending.signal)
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
