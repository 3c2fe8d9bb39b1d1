import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { glibcOf, tooNew } from '../../scripts/release/glibc.js'

const naming = (...versions: string[]) =>
  Buffer.from(['', 'libc.so.6', ...versions, 'malloc', ''].join('\0'))

test('the newest glibc that is named is the one that is needed', (t) => {
  t.is(glibcOf(naming('GLIBC_2.9', 'GLIBC_2.17', 'GLIBC_2.2.5')), '2.17')
  t.is(glibcOf(naming('GLIBC_2.34', 'GLIBC_2.4')), '2.34')
  t.is(glibcOf(naming('not GLIBC_2.99 at all', 'GLIBC_PRIVATE')), undefined)
})

test('a build for a newer glibc than is promised is refused by name, and one for musl is not', (t) => {
  t.regex(
    String(tooNew('uffd-rs.linux-x64-gnu.node', naming('GLIBC_2.18'))),
    /^uffd-rs\.linux-x64-gnu\.node needs glibc 2\.18, .*2\.17: build it with .*gnu\.2\.17$/,
  )
  t.is(tooNew('uffd-rs.linux-x64-gnu.node', naming('GLIBC_2.17')), undefined)
  t.is(tooNew('uffd-rs.linux-x64-musl.node', naming()), undefined)
})

test('it is read from what the compiler makes', (t) => {
  const native = fileURLToPath(new URL('../../native', import.meta.url))
  const addon = readdirSync(native).find((name) => name.endsWith('-gnu.node'))
  if (addon === undefined) return void t.pass('built for musl')
  t.regex(String(glibcOf(readFileSync(`${native}/${addon}`))), /^2\.\d+$/)
})
