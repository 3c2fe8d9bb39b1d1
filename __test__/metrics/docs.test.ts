import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { metricRows, pageWith } from '../../scripts/metrics-page.js'
import { table } from '../../src/metrics/table.js'
import { promtoolIsContent } from '../support/promtool.js'
import { temporaryDirectory } from '../support/stage.js'

const read = (name: string) => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8')
const page = read('metrics.md')
const [, alerts] = /^```yaml\n(.*?)^```$/ms.exec(read('production.md'))!

test('docs/metrics.md has the table of the core, as it is now', (t) => {
  t.is(pageWith(page, metricRows(table)), page, 'run npm run docs:metrics')
})

/** The questions for Prometheus on the page: one a line, under comments. */
const questions = [...page.matchAll(/^```promql\n(.*?)^```$/gms)]
  .flatMap(([, code]) => code!.split('\n'))
  .filter((line) => line !== '' && !line.startsWith('#'))

/** The same of the alerts for production. */
const alarms = [...alerts!.matchAll(/expr: (.*)$/gm)].map(([, question]) => question!)

test('what Prometheus is asked there and in production is asked of metrics that exist', (t) => {
  t.true(questions.length >= 4)
  t.true(alarms.length >= 5)
  const suffixes = { counter: ['_total'], gauge: [''], histogram: ['_bucket', '_sum', '_count'] }
  const known = new Set(
    table.flatMap(({ name, kind }) => suffixes[kind].map((suffix) => name + suffix)),
  )
  const asked = [...questions, ...alarms].flatMap((question) => question.match(/\buffd_\w+/g) ?? [])
  for (const name of asked) t.true(known.has(name), name)
})

test('and so that Prometheus understands it, as far as promtool is installed', (t) => {
  const file = join(temporaryDirectory(t), 'rules.yml')
  const rules = questions.map((expr, at) => ({ record: `question:${at}`, expr }))
  // JSON is YAML.
  writeFileSync(file, JSON.stringify({ groups: [{ name: 'questions', rules }] }))
  promtoolIsContent(t, ['check', 'rules', file])
  writeFileSync(file, alerts!)
  promtoolIsContent(t, ['check', 'rules', file])
})
