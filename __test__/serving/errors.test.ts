import { readFileSync } from 'node:fs'
import test from 'ava'
import native from '#native'
import { errorCodes } from '../../src/index.js'

test('every code of the native part is one of this package', (t) => {
  const codes = native.errorCodes()
  t.true(codes.length > 0)
  t.is(new Set(codes).size, codes.length)
  for (const code of codes) t.true(Object.hasOwn(errorCodes, code), code)
})

test('docs/errors.md has a row for every code, in the same words', (t) => {
  const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  const rows = [...page.matchAll(/^\| `(ERR_UFFD_\w+)` \| (.*) \|$/gm)]
  t.deepEqual(
    rows.map(([, code, meaning]) => [code, meaning]),
    Object.entries(errorCodes),
  )
})
