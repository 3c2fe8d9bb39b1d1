import type { EndReason } from '../../index.js'
import { micros, several, whole } from '../../numbers.js'
import type { Output } from '../output/output.js'

/** What came of this run: the summary, and the exit status. */
export class Tally {
  readonly #start = performance.now()
  readonly #ends: Record<EndReason, number> = {
    'guest-exited': 0,
    stopped: 0,
    'handed-over': 0,
    released: 0,
    failed: 0,
  }
  #faults = 0

  /** Guests that were refused. */
  refused = 0
  /** Traces that could not be saved. */
  unsavedTraces = 0
  /** Reports that could not be saved. */
  unsavedReports = 0
  /** The socket broke. */
  broken = false

  add(reason: EndReason, faults: number): void {
    this.#ends[reason]++
    this.#faults += faults
  }

  get hasFailed(): boolean {
    const { refused, unsavedTraces, unsavedReports, broken } = this
    return this.#ends.failed + refused + unsavedTraces + unsavedReports > 0 || broken
  }

  summarise(output: Output): void {
    const {
      'guest-exited': exited,
      stopped,
      'handed-over': handedOver,
      released,
      failed,
    } = this.#ends
    const millis = Math.round(performance.now() - this.#start)
    const { refused, unsavedTraces, unsavedReports } = this
    const counts = { exited, stopped, failed, refused }
    const kept = { handedOver, released }
    const parts = Object.entries(counts).map(([what, count]) => `${whole(count)} ${what}`)
    if (handedOver > 0) parts.push(`${whole(handedOver)} handed over`)
    if (released > 0) parts.push(`${whole(released)} released`)
    output.tell(
      'info',
      {
        event: 'summary',
        ...counts,
        ...kept,
        unsavedTraces,
        unsavedReports,
        faults: this.#faults,
        millis,
      },
      `Served ${several(exited + stopped + handedOver + released + failed, 'guest')} in ${micros(millis * 1000)}: ` +
        `${parts.join(', ')}; ${several(this.#faults, 'fault')}`,
    )
  }
}
