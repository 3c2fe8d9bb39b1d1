import { type NativeEvent } from '#native'
import { UffdError } from '../errors.js'

/** The answer to a request. */
export type Answer = Extract<NativeEvent, { request: number }>

interface Waiting {
  readonly guest: number
  readonly resolve: (answer: Answer) => void
  readonly reject: (error: UffdError) => void
}

/** What the native part was asked and has not answered. */
export class Requests {
  readonly #waiting = new Map<number, Waiting>()

  /** Resolves with the answer; rejected if the guest ends before. */
  answerTo(request: number, guest: number): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(request, { guest, resolve, reject })
    })
  }

  answer(answer: Answer): void {
    const waiting = this.#waiting.get(answer.request)
    this.#waiting.delete(answer.request)
    if (answer.type === 'tooLate') waiting?.reject(guestEnded())
    else waiting?.resolve(answer)
  }

  /** No answer can come from this guest any more. */
  giveUp(guest: number): void {
    for (const [request, waiting] of this.#waiting) {
      if (waiting.guest !== guest) continue
      this.#waiting.delete(request)
      waiting.reject(guestEnded())
    }
  }
}

export function guestEnded(): UffdError {
  return new UffdError(
    'ERR_UFFD_GUEST_ENDED',
    'The guest has ended; why is in the `ended` promise of the guest',
  )
}
