/** Why an attempt ended: the first thing that went wrong, and in which step. */
export interface Failure<Step> {
  readonly step: Step
  readonly cause: unknown
  /** The caller's signal fired. */
  readonly aborted: boolean
}

/**
 * An attempt of several steps, some at the same time. The first failure, of a step or from
 * outside, ends it: every step under way is told by the signal, and what comes of them after
 * that is of no interest.
 */
export class Steps<Step extends string> {
  readonly #ending = new AbortController()
  readonly #underWay = new Set<Step>()
  readonly #user: AbortSignal | undefined
  readonly #onUser = () => this.#fail({ cause: this.#user?.reason, aborted: true })
  #last: Step
  #failure: Failure<Step> | undefined

  constructor(first: Step, user: AbortSignal | undefined) {
    this.#last = first
    this.#user = user
    if (user?.aborted) this.#onUser()
    else user?.addEventListener('abort', this.#onUser, { once: true })
  }

  /** Fires at the first failure. */
  get signal(): AbortSignal {
    return this.#ending.signal
  }

  /** The first failure, if there was one. */
  get failure(): Failure<Step> | undefined {
    return this.#failure
  }

  /** Takes a step, unless the attempt has failed; `work` has to obey the signal. */
  async take<T>(step: Step, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    this.signal.throwIfAborted()
    this.#last = step
    this.#underWay.add(step)
    try {
      const result = await work(this.signal)
      this.signal.throwIfAborted()
      return result
    } catch (error) {
      this.#fail({ step, cause: error, aborted: false })
      throw error
    } finally {
      this.#underWay.delete(step)
    }
  }

  /** Something went wrong that no step is told of; by default the latest under way has failed. */
  fail(cause: unknown, step?: Step): void {
    this.#fail({ step, cause, aborted: false })
  }

  /** Forgets the caller's signal. */
  end(): void {
    this.#user?.removeEventListener('abort', this.#onUser)
  }

  #fail({ step, cause, aborted }: Omit<Failure<Step>, 'step'> & { step?: Step | undefined }): void {
    if (this.#failure !== undefined) return
    const latest = [...this.#underWay].at(-1) ?? this.#last
    this.#failure = { step: step ?? latest, cause, aborted }
    this.#ending.abort(cause)
  }
}
