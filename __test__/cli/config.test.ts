import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { parse } from '../../src/cli/arguments/parse.js'
import { UsageError } from '../../src/cli/arguments/usage-error.js'
import { listenOptions } from '../../src/cli/serve/listen-options.js'
import { serveOptions } from '../../src/cli/serve/options.js'
import { CommandProcess, runCommand } from '../support/command.js'
import { snapshotFile, temporaryDirectory } from '../support/stage.js'

function file(t: ExecutionContext, text: unknown): string {
  const path = join(temporaryDirectory(t), 'options.json')
  writeFileSync(path, typeof text === 'string' ? text : JSON.stringify(text))
  return path
}

const paths = { socket: '/s', snapshot: '/m' }
const read = (path: string, ...args: string[]) =>
  parse(['--config', path, ...args], serveOptions).values

test('a file gives the options of the command, and the command line counts more', (t) => {
  const path = file(t, {
    ...paths,
    'fault-around': 16,
    'fault-deadline': '1.5s',
    'kill-on-failure': true,
    once: false,
    'short-waits': false,
    'on-unservable': 'kill',
  })
  const values = read(path, '--fault-around', 'off', '--short-waits')
  t.like(listenOptions(values), {
    socket: '/s',
    snapshot: '/m',
    faultAround: false,
    faultDeadlineMs: 1500,
    killOnFailure: true,
    shortWaits: true,
    onUnservable: 'kill',
  })
  t.false(values.once)
})

const wrong: [name: string, text: unknown, message: RegExp][] = [
  ['no JSON', '{', /\/options\.json is not JSON/],
  [
    'the bytes of a snapshot',
    '\u001B[2J\u0000\uFFFD\u0007',
    /^\/\S+options\.json is not JSON: [\x20-\x7E]+$/,
  ],
  ['TOML', 'socket = 7\nsnapshot = 8\n', /^\/\S+options\.json is not JSON: .+$/],
  [
    'a number as path',
    { ...paths, socket: 7 },
    /"socket" of \/.*json must be PATH as a string, not 7/,
  ],
  ['no object', [], /\/options\.json must hold one JSON object/],
  [
    'an option that does not exist',
    { ...paths, sokcet: 1 },
    /no option "sokcet" for \/.*json; did you mean "socket"\?/,
  ],
  [
    "the package's name",
    { ...paths, faultAround: 1 },
    /no option "faultAround".*did you mean "fault-around"\?/,
  ],
  ['a file in a file', { ...paths, config: '/x' }, /no option "config"/],
  [
    'a wrong value',
    { ...paths, stats: 0 },
    /"stats" of \/.*json must be a time with its unit.*not "0"/,
  ],
  [
    'a text for a switch',
    { ...paths, once: 'yes' },
    /"once" of \/.*json must be true or false, not "yes"/,
  ],
  [
    'a switch for a text',
    { snapshot: '/m', socket: true },
    /"socket" of \/.*json must be PATH as a string, not true/,
  ],
  ['nothing that is needed', { socket: '/s' }, /--snapshot FILE is missing/],
]

for (const [name, text, message] of wrong) {
  test(`refused: ${name}`, (t) => {
    t.throws(() => read(file(t, text)), { instanceOf: UsageError, message })
  })
}

test('a file that is not there', async (t) => {
  const { status, stderr } = await runCommand(t, '--config', 'none.json')
  t.is(status, 2)
  t.regex(stderr, /Cannot read the options in \/.*\/none\.json: no such file or directory\n/)
})

test('the command serves as a file says', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const socket = `${snapshot}.sock`
  const command = new CommandProcess(t, '--config', file(t, { socket, snapshot, json: true }))
  t.like(await command.event('ready'), { socket, snapshot })
  command.signal('SIGTERM')
  t.is((await command.ended).status, 0)
})
