import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { problems } from '../../scripts/release/check.js'
import { temporaryDirectory } from '../support/stage.js'

const good = {
  tag: 'v1.2.3',
  manifest: { version: '1.2.3', repository: { type: 'git', url: 'git+https://example.com/a/b' } },
  cargo: '[workspace.package]\nversion = "1.2.3"\n',
  changelog: '# Changelog\n\n## 1.2.3 (2026-01-31)\n',
}

test('a release that fits together has no problems', (t) => {
  t.deepEqual(problems(good), [])
})

for (const [name, change, says] of [
  ['another tag', { tag: 'v1.2.4' }, /tag is v1\.2\.4.*version 1\.2\.3/],
  ['no tag', { tag: undefined }, /tag is undefined/],
  [
    'another version of Rust',
    { cargo: '[workspace.package]\nversion = "1.2.2"' },
    /Cargo\.toml has version 1\.2\.2/,
  ],
  ['no repository', { manifest: { version: '1.2.3' } }, /no repository: set "repository"/],
  [
    'no date in the changelog',
    { changelog: '## 1.2.3 (not released yet)' },
    /no heading "## 1\.2\.3/,
  ],
] as const) {
  test(`refused: ${name}`, (t) => {
    const found = problems({ ...good, ...change })
    t.is(found.length, 1)
    t.regex(String(found[0]), says)
  })
}

const program = fileURLToPath(new URL('../../scripts/release/publish.js', import.meta.url))

/** A registry in a folder: each package that was published is a file with its tarball's hash. */
const npm = `#!/usr/bin/env node
const { appendFileSync, existsSync, readFileSync, writeFileSync } = require('node:fs')
const { createHash } = require('node:crypto')
const { basename, join } = require('node:path')
const [command, ...args] = process.argv.slice(2)
const registry = process.env.REGISTRY
if (command === '--version') console.log(process.env.NPM_VERSION)
if (command === 'view') {
  const file = join(registry, args[0].replace('@', '-') + '.tgz')
  if (!existsSync(file)) { console.error('npm error code E404'); process.exit(1) }
  console.log(readFileSync(file, 'utf8'))
}
if (command === 'publish') {
  const tarball = args.at(-1)
  if (basename(tarball) === process.env.FAIL) process.exit(1)
  const hash = createHash('sha512').update(readFileSync(tarball)).digest('base64')
  writeFileSync(join(registry, basename(tarball)), 'sha512-' + hash)
  appendFileSync(join(registry, 'log'), basename(tarball) + ' ' + args.slice(0, -1).join(' ') + '\\n')
}
`

async function place(t: ExecutionContext, names: readonly string[]) {
  const directory = temporaryDirectory(t)
  const [bin, registry, out] = ['bin', 'registry', 'out'].map((name) => join(directory, name))
  for (const folder of [bin!, registry!, out!, join(directory, 'package')]) mkdirSync(folder)
  writeFileSync(join(bin!, 'npm'), npm)
  chmodSync(join(bin!, 'npm'), 0o755)
  for (const name of names) {
    const manifest = JSON.stringify({ name, version: '1.2.3' })
    writeFileSync(join(directory, 'package/package.json'), manifest)
    const tarball = join(out!, `${name}-1.2.3.tgz`)
    await new Promise((resolve) => {
      execFile('tar', ['-czf', tarball, '-C', directory, 'package'], resolve)
    })
  }
  const run = (env: Record<string, string> = {}) =>
    new Promise<{ failed: boolean; stdout: string; stderr: string }>((resolve) => {
      const PATH = `${bin}:${process.env['PATH']}`
      const set = { ...process.env, PATH, REGISTRY: registry!, NPM_VERSION: '11.5.1', ...env }
      execFile(process.execPath, [program, out!], { env: set }, (error, stdout, stderr) =>
        resolve({ failed: error !== null, stdout, stderr }),
      )
    })
  const log = () => {
    const file = join(registry!, 'log')
    const text = existsSync(file) ? readFileSync(file, 'utf8') : ''
    return text.split('\n').filter(Boolean)
  }
  return { run, log, registry: registry!, out: out! }
}

const names = ['uffd-rs', 'uffd-rs-linux-arm64-gnu', 'uffd-rs-linux-x64-musl']

test('the package comes last, with provenance', async (t) => {
  const { run, log } = await place(t, names)
  t.false((await run()).failed)
  const published = log()
  t.is(published.length, 3)
  t.true(published.at(-1)!.startsWith('uffd-rs-1.2.3.tgz '))
  for (const line of published) t.regex(line, /--provenance --access public$/)
})

test('what failed halfway goes on from there', async (t) => {
  const { run, log } = await place(t, names)
  t.true((await run({ FAIL: 'uffd-rs-linux-x64-musl-1.2.3.tgz' })).failed)
  t.is(log().length, 1)
  const again = await run()
  t.false(again.failed, again.stderr)
  t.regex(again.stdout, /uffd-rs-linux-arm64-gnu@1\.2\.3 is published already/)
  t.is(log().length, 3)
  // Once more changes nothing.
  t.false((await run()).failed)
  t.is(log().length, 3)
})

test('a version that is published with other contents is the end of it', async (t) => {
  const { run, registry, log } = await place(t, names)
  const other = `sha512-${createHash('sha512').update('other').digest('base64')}`
  writeFileSync(join(registry, 'uffd-rs-linux-arm64-gnu-1.2.3.tgz'), other)
  const { failed, stderr } = await run()
  t.true(failed)
  t.regex(stderr, /published with other contents.*raise it/s)
  t.is(log().length, 0)
})

test('an npm that cannot publish so, and a folder with nothing in it, are refused', async (t) => {
  const { run, out } = await place(t, ['uffd-rs'])
  for (const [version, refused] of [
    ['10.9.9', true],
    ['11.5.0', true],
    ['11.10.0', false],
  ] as const) {
    const { failed, stderr } = await run({ NPM_VERSION: version })
    t.is(failed, refused, version)
    if (refused) t.regex(stderr, /trusted publishing needs 11\.5\.1/)
  }
  unlinkSync(join(out, 'uffd-rs-1.2.3.tgz'))
  t.regex((await run()).stderr, /no tarballs in .*: pack first/)
})

test('nothing is published of what was packed halfway', async (t) => {
  const { run, log } = await place(t, names.slice(1))
  const { failed, stderr } = await run()
  t.true(failed)
  t.regex(stderr, /packages of platforms, and not uffd-rs itself: pack again/)
  t.is(log().length, 0)
})
