import { readdirSync, readlinkSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'

/**
 * What this process holds: descriptors that serving and requests need, and whatever keeps it
 * alive, and what is expected to join them. `left()` waits until no more is held than at first, and tells what stays all the same.
 */
export function resources(...expected: string[]): { left: () => Promise<string[]> } {
  const before = [...held(), ...expected]
  return {
    async left() {
      const patience = performance.now() + 5_000
      for (;;) {
        const more = difference(held(), before)
        if (more.length === 0 || performance.now() > patience) return more
        await setImmediate()
      }
    },
  }
}

/** What kinds of things are held, each as often as it is. */
function held(): string[] {
  return [...process.getActiveResourcesInfo(), ...descriptors()].filter(
    // Closing, or about to run: neither is held.
    (kind) => !['CloseReq', 'Immediate', 'FSReqPromise', 'TickObject'].includes(kind),
  )
}

function descriptors(): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const [kind] = readlinkSync(`/proc/self/fd/${fd}`).split(/(?<=^\w+):\[\d+\]$/)
      return /userfaultfd|pidfd|socket|\.sock|\/mem$/.test(kind!) ? [kind!] : []
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
