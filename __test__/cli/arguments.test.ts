import test from 'ava'
import { milliseconds } from '../../src/cli/arguments/duration.js'
import { parse } from '../../src/cli/arguments/parse.js'
import { UsageError } from '../../src/cli/arguments/usage-error.js'
import { listenOptions } from '../../src/cli/serve/listen-options.js'
import { serveOptions, statsEvery } from '../../src/cli/serve/options.js'

const paths = ['--socket', '/s', '--snapshot', '/m']
const read = (...args: string[]) => parse([...paths, ...args], serveOptions).values

test('two paths are enough', (t) => {
  const values = read()
  t.is(values.socket, '/s')
  t.is(values.snapshot, '/m')
  t.false(values.once)
  t.is(values.json, undefined)
  t.is(statsEvery(values), 1000)
})

test('every option of listen can be given', (t) => {
  const given =
    '--dirty-tracking on --fault-around 16 --on-unservable kill --fault-deadline 1.5s ' +
    '--handoff-timeout=2m --kill-on-failure --no-short-waits --collapse --no-systemd --stats 500ms --trace /t ' +
    '--state-dir /d --state-dir-wait --guardian --guardian-cgroup /c --guardian-log /l --socket-owner 123:100 --socket-mode 660'
  const values = read(...given.split(' '))
  t.deepEqual(listenOptions(values), {
    socket: '/s',
    snapshot: '/m',
    stateDir: '/d',
    stateDirWait: true,
    guardian: { cgroup: '/c', log: '/l' },
    socketOwner: { uid: 123, gid: 100 },
    socketMode: 0o660,
    dirtyTracking: 'on',
    faultAround: 16,
    onUnservable: 'kill',
    faultDeadlineMs: 1500,
    handoffTimeoutMs: 120_000,
    killOnFailure: true,
    shortWaits: false,
    collapse: true,
    systemd: false,
    trace: true,
    statsIntervalMs: 500,
  })
})

test('words stand for numbers where there are such', (t) => {
  t.is(read('--fault-around', 'on')['fault-around'], true)
  t.is(read('--fault-around', 'off')['fault-around'], false)
  t.is(statsEvery(read('--stats', 'off')), undefined)
})

test('a switch can be turned on and off', (t) => {
  t.is(read('--json').json, true)
  t.is(read('--no-json').json, false)
})

for (const [args, message] of [
  [[], /--socket PATH is missing/],
  [['--socket', '/s'], /--snapshot FILE is missing/],
  [['--socket'], /--socket needs a value: PATH/],
  [['--socket', '--snapshot'], /--socket needs a value, and is followed by --snapshot/],
  [['--socket='], /--socket must not be empty/],
  [[...paths, '--sokcet', '/s'], /no option --sokcet; did you mean --socket\?/],
  [[...paths, '-s'], /no option -s/],
  [[...paths, '--constructor'], /no option --constructor/],
  [[...paths, '--no-once'], /no option --no-once/],
  [[...paths, '--json', '--no-json'], /--no-json is given twice/],
  [[...paths, '--once=yes'], /--once takes no value/],
  [[...paths, '--stats', '5'], /--stats must be a time with its unit.*2m, or off, not "5"/],
  [[...paths, '--stats', '0ms'], /--stats must be whole milliseconds, at least 1ms.*, or off/],
  [[...paths, '--stats', '0'], /or off, not "0"/],
  [[...paths, '--socket-mode', '999'], /--socket-mode must be octal permissions, such as 660/],
  [
    [...paths, '--socket-owner', 'root'],
    /--socket-owner must be the numbers of a user and a group/,
  ],
  [[...paths, '--fault-around', '0'], /--fault-around must be on, off or a number of pages/],
  [
    [...paths, '--on-unservable', 'stop'],
    /--on-unservable must be poison, kill or fail, not "stop"/,
  ],
] as const) {
  test(`refused: ${args.join(' ')}`, (t) => {
    t.throws(() => parse(args, serveOptions), { instanceOf: UsageError, message })
  })
}

test('times have units', (t) => {
  t.deepEqual(['1ms', '0.5s', '2m', '1h'].map(milliseconds), [1, 500, 120_000, 3_600_000])
  for (const wrong of ['', '1', 's', '-1s', '1d', '0.0001s', '1e3s', '700h']) {
    t.throws(() => milliseconds(wrong), { instanceOf: UsageError }, wrong)
  }
})
