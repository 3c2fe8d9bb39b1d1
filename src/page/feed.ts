// What the server tells: its shape, and the connection that brings it.

/** A guest at one moment. */
export interface GuestNow {
  readonly id: string
  readonly pid?: number
  readonly memoryBytes: number
  readonly pageSize: number
  /** Faults served so far. */
  readonly faults: number
  /** Faults by bucket of {@link Moment.bounds}, and one more. */
  readonly latencies: readonly number[]
  /** Pages by state. */
  readonly pages: Readonly<Record<string, number>>
  readonly prefaultPendingPages: number
  readonly faultsInHand: number
  /** Why it is served no longer. */
  readonly ended?: string
}

/** Everything at one moment. */
export interface Moment {
  /** Milliseconds since the server's process began. */
  readonly at: number
  /** The bounds of the buckets of latencies, in seconds. */
  readonly bounds: readonly number[]
  readonly totals: Readonly<Record<string, number>>
  readonly guests: readonly GuestNow[]
}

/** The memory of the guest that is looked at. */
export interface PictureNow {
  readonly guest: string
  readonly pagesPerCell: number
  /** Six shares a cell, in base64. */
  readonly shares: string
}

/** Who is told. */
export interface Listener {
  moment(moment: Moment): void
  picture(picture: PictureNow): void
  /** Whether the server is there. */
  link(there: boolean): void
}

/** The server's events. The browser connects again by itself when the server comes back. */
export class Feed {
  readonly #listener: Listener
  #source: EventSource | undefined
  #guest: string | undefined

  constructor(listener: Listener) {
    this.#listener = listener
    this.#connect()
  }

  /** Has the pictures of this guest sent. */
  look(guest: string | undefined): void {
    if (guest === this.#guest) return
    this.#guest = guest
    this.#connect()
  }

  #connect(): void {
    this.#source?.close()
    const query = this.#guest === undefined ? '' : `?guest=${encodeURIComponent(this.#guest)}`
    const source = new EventSource(`/events${query}`)
    this.#source = source
    const on = (name: string, take: (data: unknown) => void) => {
      source.addEventListener(name, (event) => {
        take(JSON.parse((event as MessageEvent<string>).data))
      })
    }
    on('moment', (moment) => {
      this.#listener.link(true)
      this.#listener.moment(moment as Moment)
    })
    on('picture', (picture) => this.#listener.picture(picture as PictureNow))
    source.addEventListener('error', () => {
      this.#listener.link(false)
      // A refusal ends it for good; a connection that was lost does not.
      if (source.readyState === EventSource.CLOSED && source === this.#source) {
        setTimeout(() => source === this.#source && this.#connect(), 2000)
      }
    })
  }
}
