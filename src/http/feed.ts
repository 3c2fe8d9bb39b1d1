import type { ServerResponse } from 'node:http'
import type { Guest } from '../guest/guest.js'
import { bucketsOf } from '../metrics/latency.js'
import { guestTable, measured, table } from '../metrics/table.js'
import type { Inspected } from '../server/inspected.js'

/** How often whoever watches is told. */
const everyMs = 1000

/** Those who watch at once; more are turned away. */
const mostWatchers = 16

/** Cells of a picture: 32 rows of 128. */
const cells = 4096

/** Bytes that a watcher has not read, beyond which it misses what comes meanwhile. */
const mostUnread = 1 << 20

/** Guests that have ended are told of for this long. */
const rememberedMs = 60_000

/** And so many of them at the most. */
const mostRemembered = 32

interface Watcher {
  readonly response: ServerResponse
  /** The guest whose pictures it wants. */
  readonly guest: string | undefined
}

/**
 * What the live page is told, once a second while anybody watches: all guests, and the memory of
 * those that are looked at. It is put together once for all who watch.
 */
export class Feed {
  readonly #server: Inspected
  readonly #watchers = new Set<Watcher>()
  readonly #ended = new Map<string, { readonly guest: Guest; readonly since: number }>()
  #known: readonly Guest[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(server: Inspected) {
    this.#server = server
  }

  get isFull(): boolean {
    return this.#watchers.size >= mostWatchers
  }

  /** Tells a client from now on, until it hangs up. */
  add(response: ServerResponse, guest: string | undefined): void {
    const watcher = { response, guest }
    this.#watchers.add(watcher)
    response.on('close', () => this.#remove(watcher))
    response.on('error', () => this.#remove(watcher))
    this.#timer ??= setInterval(() => this.#tellOrLeave(), everyMs).unref()
    this.#send(watcher, 'moment', this.#moment())
    void this.#picture([watcher])
  }

  #remove(watcher: Watcher): void {
    this.#watchers.delete(watcher)
    if (this.#watchers.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#known = []
    this.#ended.clear()
  }

  /** Whoever watches asks again, and is told then why there is nothing to see. */
  #tellOrLeave(): void {
    try {
      this.#tell()
    } catch {
      for (const { response } of this.#watchers) response.destroy()
    }
  }

  #tell(): void {
    const moment = this.#moment()
    for (const watcher of this.#watchers) this.#send(watcher, 'moment', moment)
    const looking = new Map<string, Watcher[]>()
    for (const watcher of this.#watchers) {
      const { guest } = watcher
      if (guest !== undefined) looking.set(guest, [...(looking.get(guest) ?? []), watcher])
    }
    for (const watchers of looking.values()) void this.#picture(watchers)
  }

  #moment(): string {
    const all = measured(table, this.#server.figures())
    const total = (name: string) =>
      all.find((metric) => metric.name === name)!.samples.reduce((sum, { value }) => sum + value, 0)
    this.#noteEnds()
    const ended = [...this.#ended.values()].map(({ guest }) => guest)
    return JSON.stringify({
      at: performance.now(),
      bounds: guestTable[0]!.bounds,
      totals: {
        guests: total('uffd_guests'),
        arrived: total('uffd_arrivals'),
        ended: total('uffd_ends'),
        refused: total('uffd_refusals'),
        faults: total('uffd_faults'),
      },
      guests: [...this.#known, ...ended].map(describe),
    })
  }

  /** Guests that were there at the last look and are not now have ended. */
  #noteEnds(): void {
    const now = performance.now()
    const guests = this.#server.guests
    const present = new Set(guests)
    for (const guest of this.#known) {
      if (!present.has(guest)) this.#ended.set(guest.id, { guest, since: now })
    }
    for (const [id, { since }] of this.#ended) {
      const isOld = now - since > rememberedMs || this.#ended.size > mostRemembered
      if (isOld) this.#ended.delete(id)
    }
    this.#known = guests
  }

  /** Takes a picture of the guest that these watchers look at, away from the event loop. */
  async #picture(watchers: readonly Watcher[]): Promise<void> {
    const id = watchers[0]?.guest
    const guest = this.#known.find((one) => one.id === id)
    if (guest === undefined) return
    try {
      const { pagesPerCell, shares } = await guest.picture(cells)
      const picture = { guest: id, pagesPerCell, shares: shares.toString('base64') }
      for (const watcher of watchers) this.#send(watcher, 'picture', JSON.stringify(picture))
    } catch {
      // It has ended meanwhile, or must not be looked at: the page keeps what it has.
    }
  }

  #send({ response }: Watcher, event: string, data: string): void {
    if (response.writableLength > mostUnread || response.destroyed) return
    response.write(`event: ${event}\ndata: ${data}\n\n`)
  }
}

/** A guest as the page is told of it. */
function describe(guest: Guest) {
  const { id, pid, pageSize, regions, endSoFar } = guest
  const metrics = measured(guestTable, guest.figures())
  const samples = (name: string) => metrics.find((metric) => metric.name === name)!.samples
  const value = (name: string) => samples(name).reduce((sum, sample) => sum + sample.value, 0)
  return {
    id,
    pid,
    memoryBytes: Number(regions.reduce((sum, { size }) => sum + size, 0n)),
    pageSize,
    faults: value('uffd_faults'),
    latencies: bucketsOf(metrics[0]!),
    pages: Object.fromEntries(samples('uffd_pages').map((sample) => [sample.field, sample.value])),
    prefaultPendingPages: value('uffd_prefault_pending_pages'),
    faultsInHand: value('uffd_faults_in_hand'),
    ended: endSoFar?.reason,
  }
}
