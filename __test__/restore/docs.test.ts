// The examples of docs/firecracker.md, run as they stand there but for the paths.
import { readFileSync, writeFileSync, mkdirSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { pathToFileURL, fileURLToPath } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { Trace } from '../../src/index.js'
import { Firecracker, type Played } from '../support/firecracker.js'
import { CommandProcess } from '../support/command.js'
import { touches } from '../support/touches.js'

const root = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const page = readFileSync(root('docs/firecracker.md'), 'utf8')

/** The blocks of this language, in order. */
const blocks = (language: string) =>
  [...page.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
    .filter(([, its]) => its === language)
    .map(([, , code]) => code!)

const [restoring, failing, snapshotting] = blocks('js')
const [template] = blocks('json')
const [configuring, serving] = blocks('sh')

/** Puts what the test has in the place of the paths on the page. */
function inPlace(firecracker: Firecracker, code: string): string {
  const directory = dirname(firecracker.snapshot)
  return code
    .replaceAll('/run/vm-7/firecracker.sock', firecracker.api.socketPath)
    .replaceAll('/snapshots/base/', `${directory}/`)
    .replaceAll('/snapshots/next/', `${directory}/next-`)
    .replaceAll('/templates/', `${directory}/templates/`)
    .replaceAll('../snapshots/base/', '../')
    .replaceAll("'uffd-rs'", `'${pathToFileURL(root('dist/index.js')).href}'`)
}

async function start(t: ExecutionContext, played: Played = {}) {
  const balloon = { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true }
  const snapshot = { balloon }
  const firecracker = await Firecracker.start(t, { version: '1.15.0', snapshot, ...played })
  const directory = dirname(firecracker.snapshot)
  mkdirSync(join(directory, 'templates'))
  // On the page the template's folder is beside that of the snapshots.
  const json = template!.replaceAll('../snapshots/base/', '../')
  writeFileSync(join(directory, 'templates', 'base.json'), json)
  return firecracker
}

/** Runs an example; resolves with all that it printed. Tells when it prints something. */
function run(t: ExecutionContext, firecracker: Firecracker, code: string, onOutput = () => {}) {
  const file = join(dirname(firecracker.snapshot), 'example.mjs')
  writeFileSync(file, inPlace(firecracker, code))
  const child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  let stdout = ''
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    stdout += more
    onOutput()
  })
  return Promise.all([text(child.stderr), once(child, 'close')]).then(([stderr, [status]]) => {
    t.is(status, 0, stderr)
    return stdout
  })
}

test('restoring', async (t) => {
  const firecracker = await start(t)
  let told = () => {}
  const restored = new Promise<void>((resolve) => {
    told = resolve
  })
  const output = run(t, firecracker, restoring!, told)
  // A guest that exits before the answer to its resume would make the restore fail.
  await Promise.race([restored, output])
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
  const { pid } = firecracker.guest
  await firecracker.guest.exit()
  t.is(await output, `process ${pid} of Firecracker 1.15.0 runs\nguest-exited \n`)
})

async function saveTrace(snapshot: string) {
  const trace = await Trace.record(touches(3, 9), { snapshot, pageSize: 4096 })
  await trace.save(join(dirname(snapshot), 'boot.trace'))
}

test('restoring by a template, with a trace', async (t) => {
  const firecracker = await start(t)
  await saveTrace(firecracker.snapshot)
  t.is(await run(t, firecracker, failing!), 'prefetched 2 of 2 pages\n')
})

test('a failure', async (t) => {
  const firecracker = await start(t, { version: '1.13.1' })
  await saveTrace(firecracker.snapshot)
  const output = await run(t, firecracker, failing!)
  t.regex(output, /^ERR_UFFD_RESTORE_VERSION version untouched .*The template needs/)
})

test('pausing for a snapshot', async (t) => {
  const firecracker = await start(t)
  const output = await run(t, firecracker, snapshotting!)
  t.regex(output, /unfaulted: 64,.*\} 0 true\n$/s)
  t.like(firecracker.api.bodies('PUT /snapshot/create')[0], {
    mem_file_path: join(dirname(firecracker.snapshot), 'next-mem'),
  })
  t.is(firecracker.api.vm.state, 'Running')
})

/** The words of a command line on the page. */
const words = (firecracker: Firecracker, code: string) =>
  inPlace(firecracker, code.replaceAll('\\\n', ' ')).trim().split(/\s+/).slice(1)

test('configuring by the command', async (t) => {
  const firecracker = await start(t)
  const command = new CommandProcess(t, ...words(firecracker, configuring!))
  t.is((await command.ended).status, 0)
  t.like(firecracker.api.bodies('PUT /balloon')[0], { free_page_reporting: true })
})

test('restoring by the command', async (t) => {
  const firecracker = await start(t)
  const command = new CommandProcess(t, ...words(firecracker, serving!))
  t.like(await command.event('restored'), { freePageReporting: true })
})
