import native, { type Metric, type MetricKind } from '#native'

/** A series with its values: one, or a histogram's buckets and sum. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  /** The name of the number in statistics; a histogram's has none. */
  readonly field: string | undefined
  readonly value: number
  /** How many faults each bucket has, its bound not passed and the last one's passed. */
  readonly counts?: readonly number[]
}

/** A metric with what it amounts to. */
export interface Measured {
  readonly name: string
  readonly kind: MetricKind
  readonly unit: string | undefined
  readonly help: string
  readonly bounds: readonly number[]
  readonly samples: readonly Sample[]
}

/** The table of the core: what is counted, described once. */
export const table: readonly Metric[] = native.metrics()

/** Those that each guest has, which come first. */
export const guestTable: readonly Metric[] = table.filter(({ scope }) => scope === 'guest')

/** Puts values, in the order of the table, to its metrics. */
export function measured(metrics: readonly Metric[], values: Float64Array): Measured[] {
  let at = 0
  const next = () => values[at++]!
  return metrics.map(({ name, kind, unit, help, bounds, series }) => {
    const samples = series.map(({ labels, field }): Sample => {
      const named = Object.fromEntries(labels.map((label) => [label.name, label.value]))
      const of = { labels: named, field: field ?? undefined }
      if (kind !== 'histogram') return { ...of, value: next() }
      const counts = [...bounds.map(next), next()]
      return { ...of, counts, value: next() }
    })
    return { name, kind, unit: unit ?? undefined, help, bounds, samples }
  })
}
