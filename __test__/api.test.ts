// The reference of the interface is made from its types, and says something of each.
import { readFileSync } from 'node:fs'
import test from 'ava'
import { apiPage } from '../scripts/api/page.js'
import * as main from '../src/index.js'
import * as opentelemetry from '../src/opentelemetry/index.js'
import * as testing from '../src/testing/index.js'

const page = readFileSync(new URL('../docs/api.md', import.meta.url), 'utf8')

test('docs/api.md is as the types are now', (t) => {
  t.timeout(120_000)
  t.true(apiPage() === page, 'run npm run build:ts && npm run docs:api')
})

test('it has whatever can be imported', (t) => {
  const headings = new Set([...page.matchAll(/^### (.*)$/gm)].map(([, name]) => name))
  for (const name of [main, opentelemetry, testing].flatMap((entry) => Object.keys(entry))) {
    t.true(headings.has(name), name)
  }
})

test('nothing there is without a word about it', (t) => {
  const rows = page.match(/^\| `.*\|$/gm)!
  t.true(rows.length > 300)
  for (const row of rows) t.notRegex(row, /\|\s*\|$/)
  for (const [section] of page.matchAll(/^### \w+\n\n(?:```|\||Is ).*/gm)) t.fail(section)
})
