// Links of the documents lead somewhere, and what they are made of is there.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { serveOptions } from '../src/cli/serve/options.js'
import { restoreOptions } from '../src/cli/restore/options.js'
import { temporaryDirectory } from './support/stage.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const pages = [
  ...readdirSync(root).filter((name) => name.endsWith('.md')),
  ...readdirSync(join(root, 'docs')).map((name) => join('docs', name)),
].filter((name) => name.endsWith('.md'))

for (const page of pages) {
  test(`the links of ${page}`, (t) => {
    const text = readFileSync(join(root, page), 'utf8')
    for (const [, link] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(link!)) continue
      const [file = '', anchor] = link!.split('#')
      const path = file === '' ? join(root, page) : resolve(root, dirname(page), file)
      t.true(existsSync(path), link)
      if (anchor !== undefined) t.true(anchors(path).includes(anchor), link)
    }
    t.pass()
  })
}

/** What headings are called in links; of those that are alike, the second has a 1. */
function anchors(path: string): string[] {
  const headings = readFileSync(path, 'utf8').match(/^#+ .*$/gm) ?? []
  const plain = headings.map((heading) =>
    heading
      .replace(/^#+ /, '')
      .toLowerCase()
      .replaceAll(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  )
  return plain.map((anchor, at) => {
    const before = plain.slice(0, at).filter((other) => other === anchor).length
    return before === 0 ? anchor : `${anchor}-${before}`
  })
}

test('files and tests that documents name are there', (t) => {
  for (const page of ['SECURITY.md', 'CONTRIBUTING.md']) {
    const text = readFileSync(join(root, page), 'utf8')
    for (const [path] of text.matchAll(/\b(?:crates|src|docs|__test__)\/[\w/.-]+\w/g)) {
      t.true(existsSync(join(root, path)), `${page}: ${path}`)
    }
  }
})

test('the parts in the picture of the architecture are there', (t) => {
  const picture = readFileSync(join(root, 'docs/architecture.svg'), 'utf8')
  const named = [...picture.matchAll(/class="module"[^>]*>([^<]+)</g)]
  const parts = named.flatMap(([, words]) => words!.split(' '))
  t.true(parts.length > 25)
  const places = ['', 'crates/core/src', 'crates/core/src/fault_loop']
  for (const part of parts)
    t.true(
      places.some((place) => existsSync(join(root, place, part))),
      part,
    )
  // Where it is shown nothing is fetched for it.
  t.notRegex(picture, /(?:href|src)=|@import|<script/)
})

test('each claim names a command that exists', (t) => {
  const page = readFileSync(join(root, 'docs/claims.md'), 'utf8')
  const rows = page.match(/^\| (?!claim|-).*\|$/gm) ?? []
  t.true(rows.length > 15)
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  const aliases = readFileSync(join(root, '.cargo/config.toml'), 'utf8')
  const proofs = join(root, 'crates/proof/tests')
  const exists = (command: string) => {
    const [program, verb, name, ...rest] = command.split(' ')
    if (program === 'npx') return existsSync(join(root, name!))
    if (program === 'npm') return Object.hasOwn(scripts, name!)
    if (verb !== 'test') return new RegExp(`^${verb} = `, 'm').test(aliases)
    const proof = rest.at(-1)!
    return [`${proof}.rs`, `${proof}/main.rs`].some((file) => existsSync(join(proofs, file)))
  }
  for (const row of rows) {
    const commands = [...row.matchAll(/`((?:cargo|npm|npx) [^`]+)`/g)].map(
      ([, command]) => command!,
    )
    t.true(commands.length > 0, row)
    for (const command of commands) t.true(exists(command), command)
  }
})

test('options of the command that documents name exist', (t) => {
  const known = new Set(Object.keys({ ...serveOptions, ...restoreOptions }))
  const page = readFileSync(join(root, 'docs/production.md'), 'utf8')
  for (const [, option] of page.matchAll(/(?<![-|])--([a-z][a-z-]+)/g))
    t.true(known.has(option!), option)
})

test('the units of docs/systemd.md belong together, and systemd reads them where it is installed', (t) => {
  const page = readFileSync(join(root, 'docs/systemd.md'), 'utf8')
  const units = [...page.matchAll(/```ini\n# \S+\/([\w.-]+)\n(.*?)```/gs)]
  t.deepEqual(
    units.map(([, name]) => name),
    ['uffd-rs.socket', 'uffd-rs.service'],
  )
  const [socket, service] = units.map(([, , text]) => text!)
  const [, start] = /^ExecStart=\/usr\/bin\/uffd-rs-serve (.*)$/m.exec(service!)!
  const values = Object.fromEntries([...start!.matchAll(/--(\S+) (\S+)/g)].map(([, ...kv]) => kv))
  t.deepEqual(Object.keys(values), ['socket', 'snapshot', 'state-dir'])
  t.regex(socket!, new RegExp(`^ListenStream=${values['socket']}$`, 'm'))
  t.is(values['state-dir'], `/run/${/^RuntimeDirectory=(.*)$/m.exec(service!)![1]}`)

  const directory = temporaryDirectory(t)
  const paths = units.map(([, name, text]) => {
    const path = join(directory, name!)
    // The command need not be installed for the test.
    writeFileSync(path, text!.replace('/usr/bin/uffd-rs-serve', process.execPath))
    return path
  })
  const { error, status, stderr } = spawnSync('systemd-analyze', ['verify', ...paths])
  if (error !== undefined) return t.log(`systemd-analyze: ${error.message}`)
  t.is(status, 0, String(stderr))
  // An older one does not know the youngest key.
  const complaints = String(stderr).trim().split('\n').filter(Boolean)
  t.deepEqual(
    complaints.filter((line) => !line.includes("'FileDescriptorStorePreserve'")),
    [],
  )
})
