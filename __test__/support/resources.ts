import { readdirSync, readlinkSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { deadlineMs } from './guest.js'

/**
 * What this process holds: descriptors that serving and requests need, and whatever keeps it
 * alive, and what is expected to join them. `left()` waits until no more is held than at first,
 * and tells what stays all the same.
 */
export function resources(...expected: string[]): { left: () => Promise<string[]> } {
  const before = [...held(), ...expected]
  return {
    async left() {
      const patience = performance.now() + deadlineMs / 2
      for (let pause = 1; ; pause = Math.min(2 * pause, 50)) {
        const more = difference(held(), before)
        if (more.length === 0 || performance.now() > patience) return more
        await setTimeout(pause)
      }
    },
  }
}

/** What kinds of things are held, each as often as it is. */
function held(): string[] {
  const kinds = descriptors()
    .map((link) => link.replace(/(?<=^\w+):\[\d+\]$/, ''))
    .filter((kind) => /userfaultfd|pidfd|socket|\.sock|\/mem$/.test(kind))
  return [...process.getActiveResourcesInfo(), ...kinds].filter(
    // Closing, or about to run: neither is held.
    (kind) => !['CloseReq', 'Immediate', 'FSReqPromise', 'TickObject'].includes(kind),
  )
}

/** What each open descriptor of this process is of: a path, or a kind such as `socket:[7]`. */
export function descriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)]
    } catch {
      // Closed since it was listed.
      return []
    }
  })
}

function difference(now: string[], before: string[]): string[] {
  const rest = [...before]
  return now.filter((kind) => {
    const index = rest.indexOf(kind)
    if (index >= 0) rest.splice(index, 1)
    return index < 0
  })
}
