/** Pages `start` to `end`, the last one excluded. */
export interface PageRange {
  readonly start: number
  readonly end: number
}
