import { readFile } from 'node:fs/promises'
import { UffdError } from './errors.js'
import { type Guest } from './guest/guest.js'
import { guestTable, measured } from './metrics/table.js'
import { warn } from './warn.js'

/** Bytes of a page of the pool. */
export const hugePageSize = 2_097_152

const folder = '/sys/kernel/mm/hugepages/hugepages-2048kB'

/** What a guest of 2 MiB pages needs of the host's pool, and what there is; all in such pages. */
export interface HugePagePool {
  /** Pages of its memory that are not there yet. */
  readonly needed: number
  /** Free pages that nobody has reserved, and those that the kernel may add (overcommit). */
  readonly free: number
  /** Pages that other guests of this process have not touched yet, or have given back. */
  readonly promised: number
}

/** Pages that are kept for a guest that has not come yet. */
export interface PromisedPages {
  readonly pages: number
}

/** Looks at a pool that changes meanwhile. */
const mostTries = 20

/** Who was promised pages by this process. */
const guests = new Set<Guest>()
const awaited = new Set<PromisedPages>()

/** Restores look one after the other: two must not be promised the same pages. */
let lastLook: Promise<unknown> = Promise.resolve()

const totalPages = ({ regions }: Guest) => sum(regions.map(({ pageCount }) => pageCount))

/** A guest has come: if its pages are of the pool, and too few are left for it, that is said. */
export function promiseTo(guest: Guest, socket: string): void {
  if (guest.pageSize !== hugePageSize) return
  guests.add(guest)
  void tellIfShort(guest, socket)
}

async function tellIfShort(guest: Guest, socket: string): Promise<void> {
  // Restores that wait count later: one of them may be waiting for this guest.
  const pool = await look(() => owedTo(guest), othersThan(guest), [])
  if (guests.has(guest) && isShort(pool)) warn(told(pool, `on ${socket}`), 'ERR_UFFD_HUGE_PAGES')
}

/** A guest has ended: its pages are free again, or about to be. */
export function promiseNoMore(guest: Guest): void {
  guests.delete(guest)
}

/**
 * Keeps pages for a guest with so many bytes of memory, until {@link release}.
 *
 * @throws {UffdError} if the pool cannot hold it
 */
export async function promise(bytes: number): Promise<PromisedPages> {
  const mine = keep({ pages: Math.ceil(bytes / hugePageSize) }, lastLook)
  lastLook = Promise.allSettled([mine])
  return await mine
}

async function keep(kept: PromisedPages, before: Promise<unknown>): Promise<PromisedPages> {
  await before
  const pool = await look(async () => kept.pages, guests, awaited)
  if (isShort(pool)) throw new UffdError('ERR_UFFD_HUGE_PAGES', told(pool, 'to be restored'))
  awaited.add(kept)
  return kept
}

/**
 * Refuses a guest that has come, and whose memory the pool cannot hold beside those that came before
 * it.
 *
 * @throws {UffdError} if it cannot
 */
export async function requireRoom(guest: Guest): Promise<void> {
  const all = [...guests]
  const before = all.slice(0, Math.max(0, all.indexOf(guest)))
  const pool = await look(() => owedTo(guest), before, awaited)
  if (isShort(pool)) throw new UffdError('ERR_UFFD_HUGE_PAGES', told(pool, 'that was loaded'))
}

const othersThan = (guest: Guest) => [...guests].filter((other) => other !== guest)

/** The guest has come, and counts itself, or will not come. */
export function release(kept: PromisedPages | undefined): void {
  if (kept !== undefined) awaited.delete(kept)
}

async function look(
  needs: () => Promise<number>,
  others: Iterable<Guest>,
  waiting: Iterable<PromisedPages>,
): Promise<HugePagePool> {
  for (let tries = 1; ; tries++) {
    const before = await freePages()
    const [needed, ...owed] = await Promise.all([needs(), ...[...others].map(owedTo)])
    const kept = [...waiting].map(({ pages }) => pages)
    const free = await freePages()
    // What a guest takes between the questions would be counted twice, or not at all.
    if (free === before || tries === mostTries) {
      return { needed, free, promised: sum([...owed, ...kept]) }
    }
  }
}

/** How long a fault loop is waited for: the kernel may hold it up for as long as it likes. */
const patienceMs = 1_000

/** Pages that a guest may still take. */
async function owedTo(guest: Guest): Promise<number> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, patienceMs, undefined)
  })
  try {
    const stats = await Promise.race([guest.stats(), late])
    return totalPages(guest) - (stats?.pages.faulted ?? faultedPages(guest))
  } catch {
    // It has ended.
    return 0
  } finally {
    clearTimeout(timer)
  }
}

/** Pages of a guest that are there, as its fault loop has left them to be read. */
function faultedPages(guest: Guest): number {
  const { samples } = measured(guestTable, guest.figures()).find(
    ({ name }) => name === 'uffd_pages',
  )!
  const there = samples.filter(({ field }) => ['clean', 'zero', 'dirty'].includes(field ?? ''))
  return sum(there.map(({ value }) => value))
}

async function freePages(): Promise<number> {
  const [free, reserved, overcommit, surplus] = await Promise.all([
    number('free_hugepages'),
    number('resv_hugepages'),
    number('nr_overcommit_hugepages'),
    number('surplus_hugepages'),
  ])
  return Math.max(0, free - reserved) + Math.max(0, overcommit - surplus)
}

/** A kernel without such pages has none. */
async function number(name: string): Promise<number> {
  const text = await readFile(`${folder}/${name}`, 'utf8').catch(() => '0')
  return Number(text)
}

const sum = (numbers: readonly number[]) => numbers.reduce((all, each) => all + each, 0)

const isShort = ({ needed, free, promised }: HugePagePool) => needed > free - promised

function told({ needed, free, promised }: HugePagePool, which: string): string {
  const missing = needed - (free - promised)
  return (
    `The guest ${which} needs ${needed} pages of 2 MiB; the pool has ${free} free, ` +
    `${promised} of them promised to other guests of this process: ` +
    `raise vm.nr_hugepages by ${missing}, or its threads wait when the pool is used up`
  )
}
