import { type UffdError } from '../errors.js'
import { type Guest } from '../guest/guest.js'

interface Waiting {
  readonly resolve: (guest: Guest | undefined) => void
  readonly reject: (error: UffdError) => void
}

/** Guests that have ended and that nobody has asked for yet; earlier ones are forgotten. */
const mostEnded = 64

/** Guests on their way to whoever asks for them: each to one, in order. */
export class Arrivals {
  readonly #guests: Guest[] = []
  readonly #waiting = new Set<Waiting>()
  #over = false
  #error: UffdError | undefined

  add(guest: Guest): void {
    const [first] = this.#waiting
    if (first === undefined) {
      this.#guests.push(guest)
      this.#forget()
    } else {
      this.#waiting.delete(first)
      first.resolve(guest)
    }
  }

  /**
   * The next guest, or `undefined` when there will be none; `cancel` gives up the wait without
   * losing a guest.
   */
  next(): { guest: Promise<Guest | undefined>; cancel: (error: UffdError) => void } {
    const ready = this.#guests.shift()
    if (ready !== undefined || (this.#over && this.#error === undefined)) {
      return { guest: Promise.resolve(ready), cancel: () => {} }
    }
    if (this.#error !== undefined) {
      return { guest: Promise.reject(this.#error), cancel: () => {} }
    }
    let waiting: Waiting
    const guest = new Promise<Guest | undefined>((resolve, reject) => {
      waiting = { resolve, reject }
      this.#waiting.add(waiting)
    })
    const cancel = (error: UffdError) => {
      if (this.#waiting.delete(waiting)) waiting.reject(error)
    }
    return { guest, cancel }
  }

  /** A program that never asks must not collect all guests there ever were. */
  #forget(): void {
    const [oldest, ...later] = this.#guests.filter(({ endSoFar }) => endSoFar !== undefined)
    if (oldest !== undefined && later.length >= mostEnded) {
      this.#guests.splice(this.#guests.indexOf(oldest), 1)
    }
  }

  /** No more guests will come; with an error, because of that. */
  end(error?: UffdError): void {
    if (this.#over) return
    this.#over = true
    this.#error = error
    for (const { resolve, reject } of this.#waiting) {
      if (error === undefined) resolve(undefined)
      else reject(error)
    }
    this.#waiting.clear()
  }
}
