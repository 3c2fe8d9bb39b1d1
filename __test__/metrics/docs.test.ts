import { readFileSync } from 'node:fs'
import test from 'ava'
import { metricRows, pageWith } from '../../scripts/metrics-page.js'
import { table } from '../../src/metrics/table.js'

test('docs/metrics.md has the table of the core, as it is now', (t) => {
  const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
  t.is(pageWith(page, metricRows(table)), page, 'run npm run docs:metrics')
})
