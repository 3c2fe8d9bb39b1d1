/** One thing that was looked at. */
export interface Finding {
  /** Stable, for programs. */
  readonly id: string
  /** What was looked at. */
  readonly title: string
  /** `good`; `limited`: something is lost; `bad`: guests cannot be served. */
  readonly verdict: 'good' | 'limited' | 'bad'
  /** What was found. */
  readonly found: string
  /** What cannot be done. */
  readonly lost?: string
  /** What would have to change. */
  readonly change?: string
}
