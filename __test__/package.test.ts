import { execFile, type ExecFileOptions } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import test from 'ava'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Long enough for an install on a machine that has much else to do. */
const patienceMs = 150_000

interface Result {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

function run(program: string, args: string[], options: ExecFileOptions = {}): Promise<Result> {
  return new Promise((resolve) => {
    const limits = { timeout: patienceMs, maxBuffer: 2 ** 26, encoding: 'utf8' as const }
    execFile(program, args, { ...options, ...limits }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
      resolve({ status, stdout, stderr })
    })
  })
}

async function must(program: string, args: string[], options?: ExecFileOptions): Promise<string> {
  const { status, stdout, stderr } = await run(program, args, options)
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${status}\n${stdout}\n${stderr}`)
  return stdout
}

/** Open to every user, unlike what mkdtemp makes. */
const folder = mkdtempSync(join(tmpdir(), 'uffd-rs-package-'))
const installed = join(folder, 'installed')
let tarballs: string[] = []

test.before('pack it as publishing does, and install it in an empty folder', async (t) => {
  t.timeout(2 * patienceMs)
  // What a build that was ended halfway leaves is in nobody's way.
  const left = mkdtempSync(join(root, 'native', '.build-'))
  const built = readdirSync(join(root, 'native')).filter((name) => name.endsWith('.node'))
  for (const name of built) writeFileSync(join(left, name), 'half')
  const packed = await must(process.execPath, ['scripts/pack.js', folder, '--only-built'], {
    cwd: root,
  }).finally(() => rmSync(left, { recursive: true }))
  tarballs = packed.split('\n').filter((line) => line.endsWith('.tgz'))
  mkdirSync(installed)
  chmodSync(folder, 0o755)
  writeFileSync(join(installed, 'package.json'), '{ "private": true, "type": "module" }')
  const quiet = ['--no-audit', '--no-fund', '--prefer-offline']
  await must('npm', ['install', ...quiet, ...tarballs], { cwd: installed })
})

test.after.always('remove it', () => rmSync(folder, { recursive: true, force: true }))

/** Runs a script in the folder where the package is installed. */
const node = (...args: string[]) => run(process.execPath, args, { cwd: installed })

test('the package has what it needs to run, and no more', async (t) => {
  const main = tarballs.find((path) => /uffd-rs-\d[^/]*$/.test(path))
  const files = (await must('tar', ['-tzf', main!])).split('\n').filter(Boolean)
  const others = files.filter((file) => !/^package\/(?:dist|docs)\//.test(file)).toSorted()
  t.deepEqual(
    others.filter((file) => file !== 'package/README.md'),
    [
      'package/CHANGELOG.md',
      'package/LICENSE',
      'package/SECURITY.md',
      'package/native/index.cjs',
      'package/native/index.d.cts',
      'package/native/index.js',
      'package/package.json',
    ],
  )
  t.true(files.includes('package/dist/index.d.ts'))
  t.true(files.includes('package/dist/uffd-rs-serve.1'))
  for (const page of ['production', 'coming-from', 'errors', 'command']) {
    t.true(files.includes(`package/docs/${page}.md`), page)
  }
  t.true(files.includes('package/dist/cjs/index.cjs'))
})

const jsonLines = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)

test('the program of the guardian is installed beside the native part, and runs', async (t) => {
  const { stdout } = await node('node_modules/uffd-rs/dist/cli.js', 'doctor', '--json')
  const { found } = jsonLines(stdout).find(({ code }) => code === 'guardian')!
  const [program, access] = String(found).split(' ')
  t.is(access, 'granted')
  t.true(program!.startsWith(join(installed, 'node_modules/uffd-rs-linux-')))
  t.regex(await must(program!, ['--version']), /^uffd-rs-guardian \d/)
})

test('a package of each platform is asked for under the name the loader knows', async (t) => {
  const { napi } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    napi: { binaryName: string; targets: string[] }
  }
  t.deepEqual(napi.targets.toSorted(), [
    'aarch64-unknown-linux-gnu',
    'aarch64-unknown-linux-musl',
    'x86_64-unknown-linux-gnu',
    'x86_64-unknown-linux-musl',
  ])
  const names = join(folder, 'names')
  mkdirSync(names)
  cpSync(join(root, 'package.json'), join(names, 'package.json'))
  await must(join(root, 'node_modules/.bin/napi'), ['create-npm-dirs'], { cwd: names })
  for (const platform of [
    'linux-x64-gnu',
    'linux-x64-musl',
    'linux-arm64-gnu',
    'linux-arm64-musl',
  ]) {
    const text = readFileSync(join(names, 'npm', platform, 'package.json'), 'utf8')
    const manifest = JSON.parse(text) as { name: string; main: string; libc: string[] }
    t.is(manifest.name, `uffd-rs-${platform}`)
    t.is(manifest.main, `${napi.binaryName}.${platform}.node`)
    t.deepEqual(manifest.libc, [platform.endsWith('musl') ? 'musl' : 'glibc'])
  }
})

test('platform packages are optional dependencies of what is published, and only there', (t) => {
  const dependencies = (path: string) =>
    (JSON.parse(readFileSync(path, 'utf8')) as { optionalDependencies?: Record<string, string> })
      .optionalDependencies
  t.is(dependencies(join(root, 'package.json')), undefined)
  const published = dependencies(join(installed, 'node_modules/uffd-rs/package.json')) ?? {}
  t.is(Object.keys(published).length, tarballs.length - 1)
  t.true(Object.keys(published).every((name) => name.startsWith('uffd-rs-linux-')))
})

test('publint has nothing to say about any of its packages', async (t) => {
  for (const tarball of tarballs) {
    const pack = { tarball: new Uint8Array(readFileSync(tarball)).buffer }
    const { messages, pkg } = await publint({ pack, strict: true })
    t.deepEqual(
      messages.map((message) => formatMessage(message, pkg)),
      [],
      tarball,
    )
  }
})

test('are the types wrong? They are right for every way that Node.js and bundlers resolve them', async (t) => {
  const tarball = tarballs.find((path) => /uffd-rs-\d[^/]*$/.test(path))!
  const pack = createPackageFromTarballData(new Uint8Array(readFileSync(tarball)))
  const result = await checkPackage(pack)
  if (!result.types) return t.fail('there are no types')
  t.true(['./opentelemetry', './testing'].every((entry) => entry in result.entrypoints))
  t.deepEqual(result.problems, [])
})

test('it is imported', async (t) => {
  const script =
    "import { listen, errorCodes } from 'uffd-rs'; console.log(typeof listen, 'ERR_UFFD_PAGE' in errorCodes)"
  const { stdout, stderr } = await node('--input-type=module', '--eval', script)
  t.is(stdout, 'function true\n', stderr)
})

test('it is required', async (t) => {
  const script = "console.log(typeof require('uffd-rs').listen)"
  const { stdout, stderr } = await node('--input-type=commonjs', '--eval', script)
  t.is(stdout, 'function\n', stderr)
})

test('its types are found, from ESM and from CommonJS', async (t) => {
  const source = `import { listen, type Guest } from 'uffd-rs'
export const serve = async (): Promise<Guest> => {
  const server = await listen({ socket: '/s', snapshot: '/m' })
  // @ts-expect-error: a misspelt option
  void listen({ socket: '/s', snapshto: '/m' })
  return await server.accept()
}
`
  writeFileSync(join(installed, 'esm.mts'), source)
  writeFileSync(join(installed, 'cjs.cts'), source)
  const options = '--noEmit --strict --module nodenext --target es2022 --types node'.split(' ')
  const types = [
    '--typeRoots',
    join(root, 'node_modules/@types'),
    '--lib',
    'es2023,esnext.disposable',
  ]
  const tsc = join(root, 'node_modules/.bin/tsc')
  const { status, stdout } = await run(tsc, [...options, ...types, 'esm.mts', 'cjs.cts'], {
    cwd: installed,
  })
  t.is(status, 0, stdout)
})

/** The program of a page, as the package has it. */
function exampleOf(page: string): string {
  const text = readFileSync(join(installed, 'node_modules/uffd-rs/docs', page), 'utf8')
  return /^```ts\n(.*?)^```$/ms.exec(text)![1]!
}

test('what tests need works from there, from ESM and from CommonJS', async (t) => {
  t.timeout(patienceMs)
  const esm = exampleOf('testing.md')
  // A CommonJS module has no await of its own, and cannot import what it takes by `import`.
  const [imports, body] = [esm.match(/^import .*$/gm)!, esm.replaceAll(/^import .*$/gm, '')]
  const cjs = `${imports.join('\n')}\nvoid (async () => {${body}})()\n`
  writeFileSync(join(installed, 'testing-esm.mts'), esm)
  writeFileSync(join(installed, 'testing-cjs.cts'), cjs)
  const options = '--strict --module nodenext --target es2022 --types node'.split(' ')
  const types = ['--typeRoots', join(root, 'node_modules/@types')]
  const lib = ['--lib', 'es2023,esnext.disposable']
  const files = ['testing-esm.mts', 'testing-cjs.cts']
  const tsc = await run(
    join(root, 'node_modules/.bin/tsc'),
    [...options, ...types, ...lib, ...files],
    {
      cwd: installed,
    },
  )
  t.is(tsc.status, 0, tsc.stdout)
  for (const file of ['testing-esm.mjs', 'testing-cjs.cjs']) {
    const { status, stdout, stderr } = await node(file)
    t.is(status, 0, stderr)
    t.is(stdout, '0\nguest-exited\n')
  }
})

test('the examples compile against it', async (t) => {
  const example = join(installed, 'clones')
  cpSync(join(root, 'examples/clones'), example, {
    recursive: true,
    filter: (path) => !/clones\/(?:node_modules|dist)/.test(path),
  })
  const types = ['--noEmit', '--typeRoots', join(root, 'node_modules/@types')]
  const tsc = join(root, 'node_modules/.bin/tsc')
  const { status, stdout } = await run(tsc, ['-p', example, ...types], { cwd: installed })
  t.is(status, 0, stdout)
})

test('what a release tries of its packages holds, and is missed where something is missing', async (t) => {
  t.timeout(2 * patienceMs)
  const tryIt = (...args: string[]) =>
    run(process.execPath, ['scripts/release/try.js', ...args], { cwd: root })
  const { status, stdout, stderr } = await tryIt(folder)
  t.is(status, 0, stderr)
  t.regex(stdout, /^uffd-rs-linux-\S+ on Node\.js v\d+\S*: loads, and serves a guest$/m)

  const broken = join(folder, 'broken')
  const isGuardian = /uffd-rs-guardian\.[^/]*$/
  cpSync(installed, broken, { recursive: true, filter: (path) => !isGuardian.test(path) })
  const missed = await tryIt(broken, '--installed')
  t.not(missed.status, 0)
  t.regex(missed.stderr, /uffd-rs-guardian\.linux-\S+ --version failed/)
})

test('the newest Node.js loads it too, and serves a guest, where it can be had', async (t) => {
  t.timeout(2 * patienceMs)
  const place = join(folder, 'newest')
  mkdirSync(place)
  writeFileSync(join(place, 'package.json'), '{ "private": true }')
  const name = `node-linux-${process.arch}`
  const quiet = ['--no-audit', '--no-fund', '--prefer-offline', '--ignore-scripts']
  const { status: missing } = await run('npm', ['install', ...quiet, name], { cwd: place })
  if (missing !== 0) return void t.pass(`tried nothing: npm cannot install ${name}`)
  const newest = join(place, 'node_modules', name, 'bin/node')
  const args = ['scripts/release/try.js', installed, '--installed']
  const { status, stdout, stderr } = await run(newest, args, { cwd: root })
  t.is(status, 0, stderr)
  const major = Number(/on Node\.js v(\d+)/.exec(stdout)?.[1])
  t.true(major > 20, stdout)
  t.log(stdout.trim())
})

test('npx uffd-rs-serve --demo runs from there', async (t) => {
  t.timeout(patienceMs)
  const { status, stdout, stderr } = await run('npx', ['uffd-rs-serve', '--demo'], {
    cwd: installed,
  })
  t.is(status, 0, stderr)
  t.regex(stdout, /✓ Every byte was right/)
  t.regex(stdout, /prefetched +8,192 pages/)
  t.regex(stdout, /read again +zeros, every byte/)
})

test('the demo needs no root', async (t) => {
  t.timeout(patienceMs)
  const isRoot = process.getuid?.() === 0
  const nobody = isRoot ? { uid: 65_534, gid: 65_534 } : {}
  const cli = join(installed, 'node_modules/uffd-rs/dist/cli.js')
  // No variable that points into the home of root.
  const env = { PATH: process.env['PATH'], TMPDIR: '/tmp' }
  const { status, stdout, stderr } = await run(process.execPath, [cli, '--demo'], {
    cwd: installed,
    env,
    ...nobody,
  })
  t.is(status, 0, stderr)
  t.regex(
    stdout,
    /^ {2}userfaultfd +(?:UFFD_USER_MODE_ONLY|faults of user mode and of the kernel)/m,
  )
  t.regex(stdout, /✓ Every byte was right/)
})

test('doctor answers a user without a name', async (t) => {
  const nameless = process.getuid?.() === 0 ? { uid: 54_321, gid: 54_321 } : {}
  const cli = join(installed, 'node_modules/uffd-rs/dist/cli.js')
  const args = [cli, 'doctor', '--json']
  const { stdout, stderr } = await run(process.execPath, args, { cwd: installed, ...nameless })
  t.is(stderr, '')
  t.is(typeof jsonLines(stdout).at(-1)!['canServe'], 'boolean')
})

/** Has Node.js believe that it runs elsewhere. */
const elsewhere = (changes: string) =>
  `data:text/javascript,${encodeURIComponent(`Object.defineProperties(process, ${changes})`)}`

test('on another system the import says that Linux is needed', async (t) => {
  const fake = elsewhere("{ platform: { value: 'darwin' } }")
  const imported = await node('--import', fake, '--input-type=module', '--eval', "import 'uffd-rs'")
  t.not(imported.status, 0)
  t.regex(imported.stderr, /uffd-rs needs Linux: .* darwin .*/)
  t.regex(imported.stderr, /ERR_UFFD_PLATFORM/)

  const cli = 'node_modules/uffd-rs/dist/cli.js'
  const command = await node('--import', fake, cli, '--socket', '/s', '--snapshot', '/m')
  t.is(command.status, 1)
  t.regex(command.stderr, /^uffd-rs-serve: uffd-rs needs Linux: .*\(ERR_UFFD_PLATFORM\)\n$/)
  t.is((await node('--import', fake, cli, '--help')).status, 0)
})

test('who imports it elsewhere can catch that', async (t) => {
  const fake = elsewhere("{ platform: { value: 'darwin' } }")
  const script = "import('uffd-rs').catch(({ code }) => console.log(code))"
  const { status, stdout, stderr } = await node('--import', fake, '--eval', script)
  t.is(stdout, 'ERR_UFFD_PLATFORM\n', stderr)
  t.is(status, 0)
})

test('on another processor the import says which ones there are', async (t) => {
  const fake = elsewhere("{ arch: { value: 's390x' } }")
  const { stderr } = await node(
    '--import',
    fake,
    '--input-type=module',
    '--eval',
    "import 'uffd-rs'",
  )
  t.regex(stderr, /no native part for linux-s390x: only for x64 and arm64/)
})

test('without the package of this platform the import says how to get it', async (t) => {
  const bare = join(folder, 'bare')
  const isPlatform = /node_modules\/uffd-rs-linux/
  cpSync(installed, bare, { recursive: true, filter: (path) => !isPlatform.test(path) })
  const { status, stderr } = await run(
    process.execPath,
    ['--input-type=module', '--eval', "import 'uffd-rs'"],
    { cwd: bare },
  )
  t.not(status, 0)
  t.regex(
    stderr,
    /the package uffd-rs-linux-\S+, is not installed\. Install without --omit=optional/,
  )
})
