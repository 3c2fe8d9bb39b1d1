// The programs of the README: compiled as they stand there, and the first one run with two clones
// that are there at the same time.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import native from '#native'
import { Trace } from '../src/index.js'
import { deadlineMs, GuestProcess } from './support/guest.js'
import { touches } from './support/touches.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const page = readFileSync(join(root, 'README.md'), 'utf8')
const programs = [...page.matchAll(/^```ts\n(import .*?)^```$/gms)].map(([, code]) => code!)
const pages = 64

/** Inside the checkout, where `uffd-rs` is the package itself. */
function folder(): string {
  mkdirSync(join(root, 'target'), { recursive: true })
  return mkdtempSync(join(root, 'target', 'readme-'))
}

test('every program compiles, and the first serves clones at the same time', async (t) => {
  t.timeout(2 * deadlineMs)
  t.true(programs.length >= 2)
  const directory = folder()
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const path = (name: string) => join(directory, name)
  const inPlace = (code: string) =>
    code.replaceAll('/run/uffd.sock', path('s')).replaceAll('/snapshots/base/', `${directory}/`)
  for (const [index, code] of programs.entries()) {
    writeFileSync(path(`${index}.ts`), inPlace(code))
  }
  const compilerOptions = {
    noEmit: false,
    outDir: directory,
    rootDir: directory,
    paths: { 'uffd-rs': [join(root, 'dist/index.d.ts')] },
    // A program on a page shows more than it uses.
    noUnusedLocals: false,
  }
  const config = { extends: join(root, 'tsconfig.json'), compilerOptions, include: ['*.ts'] }
  writeFileSync(path('tsconfig.json'), JSON.stringify(config))
  await promisify(execFile)(join(root, 'node_modules/.bin/tsc'), ['-p', directory])

  native.writeGuestSnapshot({ path: path('mem'), pages })
  const trace = await Trace.record(touches(5), { snapshot: path('mem'), pageSize: 4096 })
  await trace.save(path('boot.trace'))
  const program = spawn(process.execPath, [path('0.js')], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => program.kill('SIGKILL'))
  program.stderr.pipe(process.stderr)
  const told = new Set<number>()
  createInterface({ input: program.stdout }).on('line', (line) =>
    told.add(Number.parseInt(line, 10)),
  )
  while (!existsSync(path('s'))) await new Promise((resolve) => setTimeout(resolve, 10))

  const clones = [await GuestProcess.start(path('s'), `${pages}`)]
  clones.push(await GuestProcess.start(path('s'), `${pages}`))
  for (const clone of clones) t.is(await clone.wrong(0, pages, 'source'), 0)
  // Figures of both, while both run: neither waits for the other's end.
  while (!clones.every(({ pid }) => told.has(pid))) await once(program.stdout, 'data')
  for (const clone of clones) await clone.exit()
  while (!existsSync(path('next.trace'))) await new Promise((resolve) => setTimeout(resolve, 10))
  t.true((await Trace.load(path('next.trace'), { snapshot: path('mem') })).length > 0)
})
