// Every example of the documents: programs are compiled and run, command lines are read by the command
// itself. Two files beside this one run others: readme.test.ts and restore/docs.test.ts.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { parse } from '../src/cli/arguments/parse.js'
import { find } from '../src/cli/find.js'
import { Trace } from '../src/index.js'
import { compiled, examplesOf, pages, programs, root, Running } from './support/documented.js'
import { Firecracker } from './support/firecracker.js'
import { deadlineMs, GuestProcess } from './support/guest.js'
import { isAsItWas, Place } from './support/place.js'
import { snapshotFile, temporaryDirectory } from './support/stage.js'
import { touches } from './support/touches.js'

const pageCount = 64

test('every program compiles as it stands on its page', async (t) => {
  t.timeout(2 * deadlineMs)
  t.true(programs.length > 12)
  const files = programs.map(({ name, code }) => [name.replaceAll(/\W/g, '-'), code])
  await t.notThrowsAsync(compiled(t, Object.fromEntries(files) as Record<string, string>))
})

/** A snapshot and a socket beside it. */
function place(t: ExecutionContext) {
  t.timeout(2 * deadlineMs)
  const snapshot = snapshotFile(t, pageCount)
  return { snapshot, socket: join(dirname(snapshot), 's') }
}

async function guestAt(t: ExecutionContext, socket: string, ...args: string[]) {
  const process = await GuestProcess.start(socket, String(pageCount), ...args)
  t.teardown(() => process.kill())
  return process
}

/** A Firecracker, and how an example reaches it. */
async function firecracker(t: ExecutionContext) {
  const played = await Firecracker.start(t)
  t.timeout(2 * deadlineMs)
  const { apiSocket, snapshot, snapshotState } = played.options
  return { played, setting: { apiSocket, snapshot, snapshotState, socket: played.socket } }
}

/** A restore with its end awaited: of a Firecracker whose guest exits. */
async function restoresAndEnds(t: ExecutionContext, name: string) {
  const { played, setting } = await firecracker(t)
  const inPlace = {
    '/run/vm-7/firecracker.sock': setting.apiSocket,
    '/snapshots/base/state': setting.snapshotState,
    '/snapshots/base/mem': setting.snapshot,
    'const { reason }': "console.log('restored')\nconst { reason }",
  }
  const running = await Running.start(t, name, { ...setting, inPlace })
  await running.line(/^restored$/)
  t.is(await played.guest.wrong(0, pageCount, 'source'), 0)
  await played.guest.exit()
  await running.line(/^done$/)
}

/** What runs each program, and sees that it does what its page says. */
const runs: Record<string, (t: ExecutionContext, name: string) => Promise<void>> = {
  'README.md 1': restoresAndEnds,
  'README.md 2': async (t, name) => {
    const left = new Place(t)
    const process = await left.left()
    t.timeout(2 * deadlineMs)
    const { socket, snapshot, stateDir } = left.options()
    const inPlace = { '/run/uffd-rs': stateDir }
    const running = await Running.start(t, name, { socket, snapshot, inPlace })
    t.regex(await running.line(/^[\w-]{36} /), new RegExp(` ${process.pid}$`))
    // It is released: whoever kills the server takes nothing from the guest.
    await running.line(/^done$/)
    running.child.kill('SIGKILL')
    await isAsItWas(t, process)
  },
  'docs/coming-from.md 0': async (t, name) => {
    const { snapshot, socket } = place(t)
    const inPlace = { '/run/uffd.sock': socket, '/snapshots/base/mem': snapshot }
    const running = await Running.start(t, name, { snapshot, socket, inPlace })
    await running.line(/^done$/)
    await guestAt(t, socket, '--no-fd', '--close-socket')
    await running.complaint(/^ERR_UFFD_HANDOFF_\w+ /m)
    t.is(await (await guestAt(t, socket)).wrong(0, pageCount, 'source'), 0)
  },
  'docs/metrics.md 0': async (t, name) => {
    const inPlace = {
      '127.0.0.1:9100': '127.0.0.1:0',
      'endpoint.url //': 'console.log(endpoint.url) //',
    }
    const running = await Running.start(t, name, { ...place(t), guests: 0, inPlace })
    t.regex(await running.line(/^http/), /^http:\/\/127\.0\.0\.1:\d+$/)
    await running.line(/^done$/)
  },
  'docs/metrics.md 1': async (t, name) => {
    const { played, setting } = await firecracker(t)
    const running = await Running.start(t, name, { ...setting, guests: 0 })
    await running.line(/^done$/)
    t.is(played.api.vm.state, 'Running')
    t.is(await played.guest.wrong(0, pageCount, 'source'), 0)
  },
  'docs/outliving.md 0': async (t, name) => {
    const { snapshot, socket } = place(t)
    const stateDir = join(temporaryDirectory(t, '/dev/shm'), 'state')
    const inPlace = {
      '/run/vm-7/uffd.sock': socket,
      '/snapshots/base/mem': snapshot,
      '/run/uffd-rs': stateDir,
    }
    const running = await Running.start(t, name, { snapshot, socket, inPlace })
    await running.line(/^done$/)
    t.is(await (await guestAt(t, socket)).wrong(0, pageCount, 'source'), 0)
    t.true(existsSync(stateDir))
  },
  'docs/outliving.md 1': async (t, name) => {
    const { snapshot, socket } = place(t)
    const stateDir = join(temporaryDirectory(t, '/dev/shm'), 'state')
    const inPlace = {
      '/run/uffd-rs': stateDir,
      'server.guardian //': 'console.log(server.guardian?.guarded) //',
    }
    const running = await Running.start(t, name, { snapshot, socket, inPlace })
    t.is(await running.line(/^\[/), '[]')
    await running.line(/^done$/)
    // With nobody to serve the guardian ends by itself once its server is gone.
    running.child.kill('SIGKILL')
  },
  'docs/production.md 0': async (t, name) => {
    const { played, setting } = await firecracker(t)
    const jail = `${dirname(setting.snapshot)}/`
    const inPlace = {
      '/srv/jailer/firecracker/vm-7/root/run/firecracker.socket': setting.apiSocket,
      '/srv/jailer/firecracker/vm-7/root/': jail,
      "'/uffd.sock'": `'${jail}uffd.sock'`,
      '/snapshots/base/mem': setting.snapshot,
    }
    const running = await Running.start(t, name, { ...setting, inPlace })
    await running.line(/^done$/)
    t.is(played.api.bodies('PUT /snapshot/load')[0]!['snapshot_path'], '/state')
    t.is(await played.guest.wrong(0, pageCount, 'source'), 0)
  },
  'docs/report.md 0': async (t, name) => {
    const { snapshot, socket } = place(t)
    const running = await Running.start(t, name, { snapshot, socket, guests: 1 })
    await running.line(/^given$/)
    const process = await guestAt(t, `${socket}.given`)
    await running.line(/^prefaulted/)
    t.is(await process.wrong(0, pageCount, 'source'), 0)
    await process.exit()
    await running.line(/^done$/)
    t.regex(readFileSync(join(running.directory, 'run.html'), 'utf8'), /<h1>build 371<\/h1>/)
  },
  'docs/testing.md 0': async (t, name) => {
    const running = await Running.start(t, name, { ...place(t), guests: 0 })
    t.is(await running.line(/^\d/), '0')
    await running.line(/^guest-exited$/)
    await running.line(/^done$/)
  },
  'docs/api.md 1': restoresAndEnds,
  'docs/api.md 0': async (t, name) => {
    const { snapshot, socket } = place(t)
    const running = await Running.start(t, name, { snapshot, socket, guests: 2 })
    await running.line(/^given$/)
    const first = await guestAt(t, `${socket}.given`)
    await first.wrong(0, 8, 'source')
    await guestAt(t, `${socket}.given`)
    t.regex(await running.line(/^prefaulted/), /^prefaulted [1-9]/)
    await running.line(/^done$/)
  },
  'docs/systemd.md 0': async (t, name) => {
    const { snapshot, socket } = place(t)
    const inPlace = {
      '/run/uffd-rs': join(temporaryDirectory(t, '/dev/shm'), 'state'),
      'server.systemd //': 'console.log(server.systemd) //',
    }
    const running = await Running.start(t, name, { snapshot, socket, inPlace })
    // No manager started it.
    t.is(await running.line(/^undefined$/), 'undefined')
    await running.line(/^done$/)
  },
}

for (const [name, run] of Object.entries(runs)) {
  test(`${name} runs`, async (t) => await run(t, name))
}

test('no program is left out', (t) => {
  const elsewhere = /^README\.md 0$|^docs\/firecracker\.md /
  const here = programs.map(({ name }) => name).filter((name) => !elsewhere.test(name))
  t.deepEqual(here.toSorted(), Object.keys(runs).toSorted())
})

/** The lines of shell examples, with those that go on as one, and without comments. */
const lines = pages.flatMap((page) =>
  examplesOf(page, 'sh').flatMap((code) => {
    const whole = code.replaceAll(/\\\n\s*/g, '').split('\n')
    return whole.map((line) => ({ page, line: line.replace(/\s+#.*$/, '').trim() }))
  }),
)

const config = examplesOf('docs/command.md', 'json')[0]!

test('every command line is one that the command takes, and so is its file of options', (t) => {
  const file = join(temporaryDirectory(t), 'uffd-rs.json')
  writeFileSync(file, config)
  const ours = lines.filter(({ line }) => /^(?:npx )?uffd-rs-serve /.test(line))
  t.true(ours.length > 12)
  for (const { page, line } of ours) {
    const words = line.replace('/etc/uffd-rs.json', file).split(/\s+/)
    const { command, rest } = find(words.slice(words.indexOf('uffd-rs-serve') + 1))
    t.notThrows(() => {
      const { words: more } = parse(rest, command.options)
      const { least, most } = command.words ?? { least: 0, most: 0 }
      if (more.length < least || more.length > most) throw new Error(`takes no ${more.join(' ')}`)
    }, `${page}: ${line}`)
  }
})

test('every script and alias that is named exists', (t) => {
  const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    scripts: Record<string, string>
  }
  const aliases = readFileSync(join(root, '.cargo/config.toml'), 'utf8')
  for (const { page, line } of lines) {
    const [program, first, second] = line.split(/\s+/)
    if (program === 'npm')
      t.true((first === 'run' ? second! : first!) in scripts, `${page}: ${line}`)
    if (program === 'cargo') t.regex(aliases, new RegExp(`^${first} = `, 'm'), `${page}: ${line}`)
  }
})

test('a trace as text has the form that its page shows', async (t) => {
  const snapshot = snapshotFile(t, pageCount)
  const trace = await Trace.record(touches(3), { snapshot, pageSize: 4096 })
  interface Text {
    readonly snapshot: object
    readonly entries: readonly object[]
  }
  const shown = JSON.parse(examplesOf('docs/trace-format.md', 'json')[0]!) as Text
  const made = JSON.parse(trace.toText()) as Text
  const form = (text: Text) =>
    [text, text.snapshot, text.entries[0]!].map((part) => Object.keys(part))
  t.deepEqual(form(made), form(shown))
})
