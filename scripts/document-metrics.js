// Writes the table in docs/metrics.md from that of the core. Run it after `npm run build`.
import { readFileSync, writeFileSync } from 'node:fs'
import { table } from '../dist/metrics/table.js'
import { metricRows, pageWith } from './metrics-page.js'

const file = new URL('../docs/metrics.md', import.meta.url)
writeFileSync(file, pageWith(readFileSync(file, 'utf8'), metricRows(table)))
