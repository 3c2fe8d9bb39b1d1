import { setTimeout as pause } from 'node:timers/promises'
import type { UffdErrorCode } from '../errors.js'
import { FirecrackerError } from './errors.js'

/** What a socket says whose owner has just been started: it is not made yet, or not listened to. */
const notYet: ReadonlySet<UffdErrorCode> = new Set([
  'ERR_UFFD_FIRECRACKER_SOCKET_MISSING',
  'ERR_UFFD_FIRECRACKER_REFUSED',
])

const longestPauseMs = 50

/** No answer within less than this says nothing: what the socket said before it does. */
const shortestWaitMs = 100

/**
 * Asks until there is an answer; what the socket says in the end is the error. `ask` is given the
 * time that is left, and has to obey the signal, which only cuts pauses short here.
 */
export async function untilReady<T>(
  ask: (leftMs: number) => Promise<T>,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<T> {
  const end = performance.now() + timeoutMs
  let said: unknown
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    const leftMs = Math.max(1, Math.ceil(end - performance.now()))
    try {
      return await ask(leftMs)
    } catch (error) {
      const code = error instanceof FirecrackerError ? error.code : undefined
      if (code === 'ERR_UFFD_FIRECRACKER_TIMEOUT' && leftMs < shortestWaitMs) throw said ?? error
      if (code === undefined || !notYet.has(code) || performance.now() >= end) throw error
      said = error
    }
    await pause(Math.min(pauseMs, leftMs), undefined, signal && { signal }).catch(() => {})
  }
}
