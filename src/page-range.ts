/** Pages `start` to `end`, the last one excluded. */
export interface PageRange {
  /** The first page. */
  readonly start: number
  /** The page after the last. */
  readonly end: number
}
