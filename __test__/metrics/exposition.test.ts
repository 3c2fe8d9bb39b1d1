import test from 'ava'
import { exposition, formatFor } from '../../src/metrics/exposition.js'
import { spreadOf } from '../../src/metrics/latency.js'
import { measured, type Measured, table } from '../../src/metrics/table.js'
import { promtoolIsContent } from '../support/promtool.js'
import { parsed } from '../support/scrape.js'

/** As many values as the table has, each another. */
function values(): Float64Array {
  const count = table.reduce(
    (sum, { kind, series, bounds }) =>
      sum + series.length * (kind === 'histogram' ? bounds.length + 2 : 1),
    0,
  )
  return Float64Array.from({ length: count }, (_, index) => index + 1)
}

const all = measured(table, values())

test('every metric of the table is read back by a parser of others, with its type and help', (t) => {
  const read = parsed(exposition(all, 'prometheus'))
  for (const { name, kind, help, samples, bounds } of all) {
    const valuesOf = (of: string) => read.get(of)?.metrics.map(({ value }) => Number(value))
    if (kind === 'histogram') {
      t.is(read.get(name)?.help, help)
      // Buckets add up, and every series has its own.
      const les = [...bounds.map(String), '+Inf']
      const totals = samples.flatMap(({ counts }) => {
        let total = 0
        return counts!.map((count) => (total += count))
      })
      t.deepEqual(valuesOf(`${name}_bucket`), totals)
      t.deepEqual(
        read.get(`${name}_bucket`)!.metrics.map(({ labels }) => labels),
        samples.flatMap(({ labels }) => les.map((le) => ({ ...labels, le }))),
      )
      t.deepEqual(
        valuesOf(`${name}_sum`),
        samples.map(({ value }) => value),
      )
      const last = totals.filter((_, at) => (at + 1) % les.length === 0)
      t.deepEqual(valuesOf(`${name}_count`), last)
      continue
    }
    const named = kind === 'counter' ? `${name}_total` : name
    t.like(read.get(named), { type: kind.toUpperCase(), help })
    t.deepEqual(
      read.get(named)!.metrics.map(({ labels = {}, value }) => [labels, Number(value)]),
      samples.map(({ labels, value }) => [labels, value]),
    )
  }
})

test('OpenMetrics names the metric and its unit, and ends', (t) => {
  const lines = exposition(all, 'openMetrics').split('\n')
  t.deepEqual(lines.slice(-2), ['# EOF', ''])
  for (const { name, kind, unit } of all) {
    t.true(lines.includes(`# TYPE ${name} ${kind}`), name)
    t.is(lines.includes(`# UNIT ${name} ${unit}`), unit !== undefined, name)
    if (unit !== undefined) t.true(name.endsWith(`_${unit}`))
  }
  const samples = lines.filter((line) => line !== '' && !line.startsWith('#'))
  const counters = all.filter(({ kind }) => kind === 'counter')
  for (const { name } of counters) {
    t.true(
      samples.some((line) => line.startsWith(`${name}_total`)),
      name,
    )
  }
})

test('promtool finds nothing wrong, where it is installed', (t) => {
  promtoolIsContent(t, ['check', 'metrics'], exposition(all, 'prometheus'))
})

test('labels and helps of any text are kept', (t) => {
  const odd = 'a "b" \\ c\nd'
  const metric: Measured = {
    name: 'uffd_odd',
    kind: 'gauge',
    unit: undefined,
    help: odd,
    bounds: [],
    samples: [{ labels: { odd }, field: 'odd', value: 1 }],
  }
  const text = exposition([metric], 'prometheus')
  t.is(text.split('\n').length, 4)
  t.deepEqual(parsed(text).get('uffd_odd')!.metrics[0]!.labels, { odd })
})

test('series in which nothing was counted are left out of a histogram, and of nothing else', (t) => {
  const none = measured(table, values().fill(0))
  const text = exposition(none, 'prometheus')
  t.notRegex(text, /^uffd_fault_seconds/m)
  t.regex(text, /^uffd_faults_total\{kind="read"\} 0$/m)
})

test('a scraper gets the format it prefers', (t) => {
  const openMetrics = 'application/openmetrics-text'
  const cases: Record<string, string> = {
    '': 'prometheus',
    '*/*': 'prometheus',
    'text/html,*/*;q=0.8': 'prometheus',
    [openMetrics]: 'openMetrics',
    [`${openMetrics};version=1.0.0,text/plain;q=0.5`]: 'openMetrics',
    [`${openMetrics};version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.5`]: 'prometheus',
    [`${openMetrics};version=9.0.0,text/plain;q=0.1`]: 'prometheus',
    [`${openMetrics};q=nonsense`]: 'prometheus',
    // What Prometheus sends.
    [`${openMetrics};version=1.0.0;escaping=allow-utf-8;q=0.6,${openMetrics};version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2`]:
      'openMetrics',
  }
  for (const [accept, format] of Object.entries(cases))
    t.is<string, string>(formatFor(accept), format, accept)
  t.is(formatFor(undefined), 'prometheus')
})

test('a spread is told by the bounds of buckets', (t) => {
  const of = (counts: number[], value: number): Measured => ({
    name: 'uffd_fault_seconds',
    kind: 'histogram',
    unit: 'seconds',
    help: '',
    bounds: [0.001, 0.01],
    samples: [{ labels: {}, field: undefined, counts, value }],
  })
  t.deepEqual(spreadOf(of([0, 0, 0], 0)), { count: 0, mean: 0, p50: 0, p99: 0 })
  t.deepEqual(spreadOf(of([50, 49, 1], 0.2)), { count: 100, mean: 2000, p50: 1000, p99: 10_000 })
  t.deepEqual(spreadOf(of([0, 0, 4], 0.2)).p50, Infinity)
})
