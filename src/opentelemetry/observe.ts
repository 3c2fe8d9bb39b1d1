import {
  type Attributes,
  type BatchObservableResult,
  type Meter,
  metrics,
  type Observable,
} from '@opentelemetry/api'
import { type Measured, measured, table } from '../metrics/table.js'
import type { Server } from '../server/server.js'

/** How a server is observed. */
export interface ObserveOptions {
  /**
   * Where the instruments are made.
   * @default that of the global provider, named `uffd-rs`
   */
  readonly meter?: Meter | undefined
  /** What tells this server from others: on every measurement. */
  readonly attributes?: Attributes | undefined
}

/** Reports one metric of the table. */
type Report = (result: BatchObservableResult, metric: Measured, attributes: Attributes) => void

/**
 * Has OpenTelemetry observe a server: an instrument for each metric, named as on `/metrics` with a
 * dot after `uffd`. They are read when a reader collects; that asks no guest. Returns how to end
 * it; a server that has ended goes on to be what it was.
 */
export function observe(server: Server, observeOptions: ObserveOptions = {}): () => void {
  const { meter = metrics.getMeter('uffd-rs'), attributes = {} } = observeOptions
  const made = measured(table, server.figures()).map((metric) => instruments(meter, metric))
  const observables = made.flatMap(({ all }) => all)
  const callback = (result: BatchObservableResult) => {
    for (const [at, metric] of measured(table, server.figures()).entries()) {
      made[at]!.report(result, metric, attributes)
    }
  }
  meter.addBatchObservableCallback(callback, observables)
  return () => meter.removeBatchObservableCallback(callback, observables)
}

function instruments(meter: Meter, metric: Measured): { all: Observable[]; report: Report } {
  const { name, kind, unit, help: description } = metric
  const dotted = name.replace('_', '.')
  if (kind === 'histogram') return histogram(meter, dotted, description)
  const options = { description, unit: unitOf(unit) }
  const one =
    kind === 'counter'
      ? meter.createObservableCounter(dotted, options)
      : meter.createObservableGauge(dotted, options)
  const report: Report = (result, { samples }, attributes) => {
    for (const { labels, value } of samples)
      result.observe(one, value, { ...attributes, ...labels })
  }
  return { all: [one], report }
}

/** A histogram that is counted elsewhere cannot be observed: its parts are, as counters. */
function histogram(
  meter: Meter,
  name: string,
  description: string,
): { all: Observable[]; report: Report } {
  const counter = (part: string, unit: string) =>
    meter.createObservableCounter(`${name}.${part}`, { description, unit })
  const [bucket, sum, count] = [
    counter('bucket', '{fault}'),
    counter('sum', 's'),
    counter('count', '{fault}'),
  ]
  const report: Report = (result, { samples, bounds }, attributes) => {
    for (const { labels, value, counts = [] } of samples) {
      const own = { ...attributes, ...labels }
      let total = 0
      for (const [at, some] of counts.entries()) {
        total += some
        result.observe(bucket, total, { ...own, le: at < bounds.length ? `${bounds[at]}` : '+Inf' })
      }
      result.observe(sum, value, own)
      result.observe(count, total, own)
    }
  }
  return { all: [bucket, sum, count], report }
}

/** A unit as OpenTelemetry writes it. */
function unitOf(unit: string | undefined): string {
  if (unit === 'bytes') return 'By'
  return unit === undefined ? '1' : '{page}'
}
