import parse from 'parse-prometheus-text-format'
import { ask } from './http.js'

/** A metric as a parser that is not ours reads it. */
export interface Scraped {
  readonly name: string
  readonly help: string
  readonly type: string
  readonly metrics: readonly Series[]
}

export interface Series {
  readonly labels?: Readonly<Record<string, string>>
  readonly value: string
}

/**
 * Metrics by their names. The parser knows no histogram that has labels, so it is not told that
 * something is one, and reads what it has line by line: `…_bucket`, `…_sum` and `…_count`.
 */
export function parsed(text: string): ReadonlyMap<string, Scraped> {
  const all = new Map<string, Scraped>()
  for (const metric of parse(text.replaceAll(/^# TYPE \S+ histogram$/gm, '')) as Scraped[]) {
    const before = all.get(metric.name)?.metrics ?? []
    all.set(metric.name, { ...metric, metrics: [...before, ...metric.metrics] })
  }
  return all
}

/** What `/metrics` says. */
export async function scrape(url: string): Promise<ReadonlyMap<string, Scraped>> {
  const { status, body } = await ask(url, '/metrics')
  if (status !== 200) throw new Error(`/metrics answers ${status}: ${body}`)
  return parsed(body)
}

/** The sum over a metric's series, or over those with a label; without any, 0. */
export function sum(
  all: ReadonlyMap<string, Scraped>,
  name: string,
  wanted: Readonly<Record<string, string>> = {},
): number {
  const metric = all.get(name)
  if (metric === undefined) throw new Error(`There is no ${name} among ${[...all.keys()].join()}`)
  const fits = (labels: Readonly<Record<string, string>> = {}) =>
    Object.entries(wanted).every(([label, value]) => labels[label] === value)
  return metric.metrics
    .filter(({ labels }) => fits(labels))
    .reduce((total, { value }) => total + Number(value), 0)
}
