import { constants } from 'node:os'

const ending = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'] as const

/**
 * Calls `end` at the first signal that asks for the end; a second one ends the process at once.
 * Returns how to forget about it.
 */
export function onSignals(end: (signal: NodeJS.Signals) => void): () => void {
  let asked = false
  const take = (signal: NodeJS.Signals) => {
    // What a shell reports for a process that the signal ended.
    if (asked) process.exit(128 + constants.signals[signal])
    asked = true
    end(signal)
  }
  for (const signal of ending) process.on(signal, take)
  return () => {
    for (const signal of ending) process.off(signal, take)
  }
}
