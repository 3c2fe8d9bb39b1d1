import type { Measured, Sample } from './table.js'

/** The text formats that scrapers ask for. */
export const formats = {
  /** The text format of Prometheus. */
  prometheus: 'text/plain; version=0.0.4; charset=utf-8',
  /** OpenMetrics 1.0. */
  openMetrics: 'application/openmetrics-text; version=1.0.0; charset=utf-8',
} as const

export type Format = keyof typeof formats

/** Metrics as text. A histogram's series in which nothing was counted is left out. */
export function exposition(metrics: readonly Measured[], format: Format): string {
  let text = ''
  for (const metric of metrics) {
    for (const line of head(metric, format)) text += `${line}\n`
    for (const line of body(metric)) text += `${line}\n`
  }
  // A scrape that was cut short is told from a whole one.
  return format === 'openMetrics' ? `${text}# EOF\n` : text
}

function head({ name, kind, unit, help }: Measured, format: Format): string[] {
  // Prometheus names the samples, OpenMetrics the metric.
  const named = format === 'prometheus' && kind === 'counter' ? `${name}_total` : name
  return [
    `# HELP ${named} ${escaped(help, format)}`,
    `# TYPE ${named} ${kind}`,
    ...(format === 'openMetrics' && unit !== undefined ? [`# UNIT ${named} ${unit}`] : []),
  ]
}

function body({ name, kind, bounds, samples }: Measured): string[] {
  const suffix = kind === 'counter' ? '_total' : ''
  return samples.flatMap((sample) =>
    sample.counts === undefined
      ? [`${name}${suffix}${labelled(sample.labels)} ${sample.value}`]
      : histogram(name, bounds, sample, sample.counts),
  )
}

function histogram(
  name: string,
  bounds: readonly number[],
  { labels, value }: Sample,
  counts: readonly number[],
): string[] {
  let total = 0
  const buckets = counts.map((count, at) => {
    total += count
    const le = at < bounds.length ? `${bounds[at]}` : '+Inf'
    return `${name}_bucket${labelled({ ...labels, le })} ${total}`
  })
  if (total === 0) return []
  return [
    ...buckets,
    `${name}_sum${labelled(labels)} ${value}`,
    `${name}_count${labelled(labels)} ${total}`,
  ]
}

function labelled(labels: Readonly<Record<string, string>>): string {
  let pairs = ''
  for (const name in labels) pairs += `,${name}="${escaped(labels[name]!, 'openMetrics')}"`
  return pairs === '' ? '' : `{${pairs.slice(1)}}`
}

/** A help of Prometheus keeps its quotes; everything else has them escaped. */
function escaped(text: string, format: Format): string {
  // Nearly all: looked at once, and not copied.
  if (!/["\\\n]/.test(text)) return text
  const plain = text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
  return format === 'prometheus' ? plain : plain.replaceAll('"', '\\"')
}

/** The format that a scraper asks for by its `Accept`: that of Prometheus unless it prefers the other. */
export function formatFor(accept: string | undefined): Format {
  let best: { format: Format; weight: number } = { format: 'prometheus', weight: 0 }
  for (const part of (accept ?? '').split(',')) {
    const [type = '', ...parameters] = part.split(';').map((word) => word.trim().toLowerCase())
    const format = ofType(type, parameters)
    const weight = weightOf(parameters)
    if (format !== undefined && weight > best.weight) best = { format, weight }
  }
  return best.format
}

function ofType(type: string, parameters: readonly string[]): Format | undefined {
  if (type === 'text/plain' || type === 'text/*' || type === '*/*') return 'prometheus'
  if (type !== 'application/openmetrics-text') return undefined
  const version = parameters.find((parameter) => parameter.startsWith('version='))
  return version === undefined || version === 'version=1.0.0' || version === 'version=0.0.1'
    ? 'openMetrics'
    : undefined
}

function weightOf(parameters: readonly string[]): number {
  const quality = parameters.find((parameter) => parameter.startsWith('q='))
  const weight = quality === undefined ? 1 : Number(quality.slice(2))
  return weight >= 0 && weight <= 1 ? weight : 0
}
