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

/** What is the same of a metric's series whenever they are read. */
const seriesOf = new Map(
  table.map((metric) => [
    metric,
    metric.series.map(({ labels, field }) => ({
      labels: Object.fromEntries(labels.map(({ name, value }) => [name, value])),
      field: field ?? undefined,
    })),
  ]),
)

/** Puts values, in the order of the table, to its metrics. */
export function measured(metrics: readonly Metric[], values: Float64Array): Measured[] {
  let at = 0
  const next = () => values[at++]!
  return metrics.map((metric) => {
    const { name, kind, unit, help, bounds } = metric
    const samples = seriesOf.get(metric)!.map(({ labels, field }): Sample => {
      if (kind !== 'histogram') return { labels, field, value: next() }
      const counts = [...bounds.map(next), next()]
      return { labels, field, counts, value: next() }
    })
    return { name, kind, unit: unit ?? undefined, help, bounds, samples }
  })
}

/** A single number of a guest. */
export interface Single {
  readonly metric: Metric
  readonly labels: Readonly<Record<string, string>>
  readonly field: string | undefined
  /** Where it is among a guest's values. */
  readonly at: number
}

/** How many values a series takes up. */
const widthOf = ({ kind, bounds }: Metric) => (kind === 'histogram' ? bounds.length + 2 : 1)

/** The numbers of a guest that are no histogram, by metric. */
export const singles: readonly (readonly Single[])[] = (() => {
  let at = 0
  const place = (metric: Metric) => {
    const from = at
    at += widthOf(metric)
    return from
  }
  const all = guestTable.map((metric) =>
    seriesOf
      .get(metric)!
      .map(({ labels, field }) => ({ metric, labels, field, at: place(metric) })),
  )
  return all.filter(([first]) => first!.metric.kind !== 'histogram')
})()
