import { type EventEmitter } from 'node:events'
import { type UffdError } from '../errors.js'
import { type Guest } from '../guest/guest.js'
import { tell } from '../tell.js'
import { warn } from '../warn.js'

/** A guest that was left in the state directory, and is not taken over. */
export interface NotRecovered {
  /** Its ledger. */
  readonly path: string
  /** Why; its code says what is in the way. */
  readonly error: UffdError
}

/** What became of the guests that another process had left in the state directory. */
export class Left {
  readonly #server: EventEmitter
  readonly #recovered: Guest[] = []
  readonly #notRecovered: NotRecovered[] = []
  readonly #swept: string[] = []
  /** Events that nobody has listened for yet: guests are taken over before anybody can. */
  readonly #untold: (['recovered', Guest] | ['notRecovered', NotRecovered])[] = []
  #isAskedFor = false

  constructor(server: EventEmitter) {
    this.#server = server
    server.on('newListener', () => queueMicrotask(() => this.#tell()))
  }

  get recovered(): readonly Guest[] {
    return [...this.#recovered]
  }

  get notRecovered(): readonly NotRecovered[] {
    this.#isAskedFor = true
    return [...this.#notRecovered]
  }

  get swept(): readonly string[] {
    return [...this.#swept]
  }

  takenOver(guest: Guest): void {
    this.#recovered.push(guest)
    this.#untold.push(['recovered', guest])
  }

  leftAlone(path: string, error: UffdError): void {
    this.#notRecovered.push({ path, error })
    this.#untold.push(['notRecovered', { path, error }])
  }

  ended(path: string): void {
    this.#swept.push(path)
  }

  /** All are known. A guest that waits in vain is no secret, if nobody asks. */
  complete(): void {
    if (this.#notRecovered.length === 0) return
    setImmediate(() => {
      if (this.#isAskedFor || this.#server.listenerCount('notRecovered') > 0) return
      for (const { error } of this.#notRecovered) warn(error.message, error.code)
    }).unref()
  }

  #tell(): void {
    for (const told of this.#untold.splice(0)) {
      const [event, what] = told
      if (this.#server.listenerCount(event) > 0) tell(this.#server, event, what)
      else this.#untold.push(told)
    }
  }
}
