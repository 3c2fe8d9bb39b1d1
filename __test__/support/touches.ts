import { type TraceEntry } from '../../src/index.js'

/** First touches of these pages, reads a microsecond apart. */
export const touches = (...pages: number[]): TraceEntry[] =>
  pages.map((page, timeMicros) => ({ page, write: false, filledWith: 'source', timeMicros }))
