import { several } from '../numbers.js'
import { accountOf, touchesOf } from './account.js'
import type { RunFacts } from './facts.js'

/** What could be done about a run, the most pressing first. */
export type AdviceKind =
  | 'snapshot-unreadable'
  | 'out-of-memory'
  | 'cold-snapshot'
  | 'given-back-and-used-again'
  | 'prefetch'
  | 'prefetch-more'
  | 'prefetch-earlier'
  | 'prefetch-less'
  | 'nothing'

export interface Advice {
  readonly kind: AdviceKind
  /** A sentence or two, with the figures it rests on. */
  readonly text: string
}

/** So few pages are not worth a word. */
const few = 64

/** A share that is worth a word. */
const considerable = 0.2

/** What to do about a run. */
export function adviceFor(facts: RunFacts): Advice {
  for (const rule of rules) {
    const advice = rule(facts)
    if (advice !== undefined) return advice
  }
  return { kind: 'nothing', text: 'Nothing stands out: there is nothing to do about this run.' }
}

type Rule = (facts: RunFacts) => Advice | undefined

const rules: readonly Rule[] = [
  ({ stats }) => {
    const { failedFetches = 0, poisonedPages = 0 } = stats ?? {}
    if (failedFetches + poisonedPages === 0) return undefined
    return {
      kind: 'snapshot-unreadable',
      text:
        `The snapshot could not be read: ${several(failedFetches, 'read')} failed and ` +
        `${several(poisonedPages, 'page')} had to be poisoned. Look at the disk it lies on, and ` +
        `whether the file was changed while it was served.`,
    }
  },
  ({ stats, pageSize }) => {
    const times = stats?.outOfMemory ?? 0
    if (times === 0) return undefined
    const what = pageSize > 4096 ? 'huge page in the pool' : 'memory on the host'
    return {
      kind: 'out-of-memory',
      text:
        `There was no ${what} for ${several(times, 'install')}, and threads of the guest waited ` +
        `for it. ${pageSize > 4096 ? 'Make the pool larger (vm.nr_hugepages)' : 'Give the host more'}, ` +
        `or run fewer guests.`,
    }
  },
  ({ stats }) => {
    const { fetches = 0, faults = 0 } = stats ?? {}
    if (fetches < few || fetches < considerable * faults) return undefined
    return {
      kind: 'cold-snapshot',
      text:
        `The snapshot was not in the host's memory: ${several(fetches, 'read')} of it went to the ` +
        `device, for ${several(faults, 'fault')}. Read it before the guest resumes: prefetch a ` +
        `trace, or only have its pages read with --prefetch-mode fetch.`,
    }
  },
  ({ touches, stats }) => {
    if (touches === undefined) return undefined
    const { needed, regained } = touchesOf(touches)
    if (regained < few || regained < needed) return undefined
    return {
      kind: 'given-back-and-used-again',
      text:
        `Most of what the guest waited for was memory that it had given back: ` +
        `${several(regained, 'page')} of ${several(stats?.removedPages ?? regained, 'page')} were ` +
        `used again. Let it give back less: larger blocks in free page reporting, or a smaller ` +
        `balloon.`,
    }
  },
  ({ touches, prefetched }) => {
    if (touches === undefined || prefetched !== undefined) return undefined
    const { needed } = touchesOf(touches)
    if (needed < few) return undefined
    return {
      kind: 'prefetch',
      text:
        `The guest waited for ${several(needed, 'page')} of the snapshot. Record a trace of a run ` +
        `like this (--trace FILE), and prefetch it for the next (--prefetch FILE).`,
    }
  },
  (facts) => {
    const account = accountOf(facts)
    if (account === undefined) return undefined
    const { missed, asked } = account
    if (missed < few || missed < considerable * (asked + missed)) return undefined
    return {
      kind: 'prefetch-more',
      text:
        `The trace did not foresee ${several(missed, 'page')} that the guest waited for, beside ` +
        `${several(asked, 'page')} that it asked for. Record again with --fault-around off, or ` +
        `join several runs: uffd-rs-serve trace merge.`,
    }
  },
  (facts) => {
    const account = accountOf(facts)
    if (account === undefined) return undefined
    const { late, asked } = account
    if (late < few || late < considerable * asked) return undefined
    return {
      kind: 'prefetch-earlier',
      text:
        `The prefetch came too late for ${several(late, 'page')} of ${several(asked, 'page')}: the ` +
        `guest asked first. Let it begin before the guest resumes, or have the snapshot in memory ` +
        `by then (--prefetch-mode fetch).`,
    }
  },
  (facts) => {
    const account = accountOf(facts)
    if (account === undefined) return undefined
    const { forNothing, asked } = account
    if (forNothing < few || forNothing < considerable * asked) return undefined
    return {
      kind: 'prefetch-less',
      text:
        `${several(forNothing, 'page')} of ${several(asked, 'page')} were prefetched for nothing. ` +
        `Keep only what every run needs: uffd-rs-serve trace merge --intersection.`,
    }
  },
]
