import type { TraceEntry } from '../trace/entries.js'

/** First touches in order: a trace, or an array of its entries. */
export interface Entries extends Iterable<TraceEntry> {
  readonly length: number
  at(index: number): TraceEntry | undefined
}
