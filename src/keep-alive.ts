/** The longest time a timer of Node.js can wait: some 25 days. */
const forEver = 2 ** 31 - 1

/**
 * Keeps the process alive while something is held that wants that. A timer that has nothing to
 * do is the one handle Node.js offers for it.
 */
export class KeepAlive {
  #holds = 0
  #timer: NodeJS.Timeout | undefined

  hold(): void {
    this.#holds++
    this.#timer ??= setInterval(() => {}, forEver)
  }

  release(): void {
    this.#holds--
    if (this.#holds > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  /** Holds for as long as the work is going on. */
  async during<T>(work: Promise<T>): Promise<T> {
    this.hold()
    try {
      return await work
    } finally {
      this.release()
    }
  }
}
