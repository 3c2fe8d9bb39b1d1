import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import { errorCodes } from '../../src/index.js'

const root = new URL('../../', import.meta.url)

/** Every code that the sources of a crate name. */
function codesIn(crate: string): string[] {
  const files = readdirSync(new URL(`crates/${crate}/src`, root), {
    recursive: true,
    withFileTypes: true,
  })
  return files
    .filter((file) => file.isFile())
    .map(({ parentPath, name }) => readFileSync(`${parentPath}/${name}`, 'utf8'))
    .flatMap((text) => text.match(/(?<=")ERR_UFFD_[A-Z_]*[A-Z](?=")/g) ?? [])
}

test('every code of the native part is one of this package', (t) => {
  const codes = [...codesIn('core'), ...codesIn('node')]
  t.true(new Set(codes).size > 40)
  for (const code of codes) t.true(Object.hasOwn(errorCodes, code), code)
})

test('docs/errors.md has a row for every code, in the same words', (t) => {
  const page = readFileSync(new URL('docs/errors.md', root), 'utf8')
  const rows = [...page.matchAll(/^\| `(ERR_UFFD_\w+)` \| (.*) \|$/gm)]
  t.deepEqual(
    rows.map(([, code, meaning]) => [code, meaning]),
    Object.entries(errorCodes),
  )
})
