import { readFileSync } from 'node:fs'
import test from 'ava'
import { commands } from '../../src/cli/commands.js'
import { runCommand } from '../support/command.js'

const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')

for (const { name, options } of commands) {
  test(`the help of ${name === '' ? 'the command' : name} lists every option`, async (t) => {
    const { status, stdout } = await runCommand(t, ...name.split(' ').filter(Boolean), '--help')
    t.is(status, 0)
    for (const [option, { takes, negatable, default: preset }] of Object.entries(options)) {
      const dashed = negatable ? `--[no-]${option}` : `--${option}`
      t.true(stdout.includes(takes === undefined ? dashed : `${dashed} ${takes}`), option)
      if (preset !== undefined) t.true(stdout.includes(`Default: ${preset}`), option)
    }
  })
}

test('no line of help is wider than a terminal', async (t) => {
  for (const { name } of commands) {
    const { stdout } = await runCommand(t, ...name.split(' ').filter(Boolean), '--help')
    for (const line of stdout.split('\n')) t.true(line.length <= 100, line)
  }
})

test('the version is that of the package', async (t) => {
  const { status, stdout } = await runCommand(t, '--version')
  t.is(status, 0)
  t.is(stdout, (JSON.parse(manifest) as { version: string }).version)
})

for (const [what, args] of Object.entries({
  'an option that does not exist': ['--sokcet', '/s'],
  'a command that does not exist': ['sevre'],
  'a word too many': ['doctor', 'now'],
  'a word too few': ['trace', 'show'],
  nothing: [],
})) {
  test(`the status for ${what} is 2`, async (t) => {
    const { status, stdout, stderr } = await runCommand(t, ...args)
    t.is(status, 2)
    t.is(stdout, '')
    t.regex(stderr, /^uffd-rs-serve: .+\nSee uffd-rs-serve (?:[a-z ]+ )?--help\n$/s)
  })
}

for (const args of [
  ['trace', '--help'],
  ['trace', '-h'],
  ['help', 'trace'],
]) {
  test(`the help of several commands: ${args.join(' ')}`, async (t) => {
    const { status, stdout, stderr } = await runCommand(t, ...args)
    t.is(status, 0)
    t.is(stderr, '')
    for (const name of ['trace show FILE', 'trace check FILE', 'trace merge FILE']) {
      t.true(stdout.includes(`uffd-rs-serve ${name}`), name)
    }
  })
}

test('help is a command too, and an option with a command after it', async (t) => {
  for (const name of ['', 'restore', 'trace', 'trace show']) {
    const words = name.split(' ').filter(Boolean)
    const { stdout: expected } = await runCommand(t, ...words, '--help')
    for (const asked of [
      ['help', ...words],
      ['--help', ...words],
      ['-h', ...words],
    ]) {
      const { status, stdout } = await runCommand(t, ...asked)
      t.is(status, 0, asked.join(' '))
      t.is(stdout, expected, asked.join(' '))
    }
  }
  t.is((await runCommand(t, 'help', 'help')).status, 0)
})

test('what follows -- is no option', async (t) => {
  for (const word of ['--help', '--version', '--demo']) {
    const { status, stdout, stderr } = await runCommand(t, 'trace', 'show', '--', word)
    t.is(status, 1, word)
    t.is(stdout, '')
    t.regex(stderr, new RegExp(`${word}.*No such file`), word)
  }
})

test("an option that only the package judges has the command's name", async (t) => {
  const args = ['--snapshot', '/m', '--socket', `/${'x'.repeat(120)}`]
  const { status, stderr } = await runCommand(t, ...args)
  t.is(status, 2)
  t.regex(stderr, /Expected --socket to be a path of at most 107 bytes/)
  const owner = await runCommand(
    t,
    '--snapshot',
    '/m',
    '--socket',
    '/s',
    '--socket-owner',
    '4294967295:1',
  )
  t.is(owner.status, 2)
  t.regex(owner.stderr, /Expected --socket-owner to be a whole number from 0 to 4294967294/)
})

for (const [args, message] of [
  [['help', 'status', 'extra'], /help takes a command and no more, not extra\nSee /],
  [['--help', 'status', 'extra'], /no more, not extra$/m],
  [['help', 'trace', 'shw'], /There is no command trace shw: give trace show,/],
  [['help', 'status', '--json'], /no more, not --json$/m],
  [['help', 'nothing'], /There is no command nothing: give /],
  [['--demo', '--demo'], /There is no option --demo\nSee uffd-rs-serve demo --help$/m],
  [['--demo', 'status'], /Unexpected argument status$/m],
  [['status', 'now', '--socket', '/s'], /Unexpected argument now$/m],
  [['dump', '1', '--socket', '/s'], /Unexpected argument 1$/m],
  [['stop', 'now', '--socket', '/s'], /Unexpected argument now$/m],
  [
    ['status', '--socket', '/s', '--control', '/c'],
    /give either --socket PATH or --control PATH$/m,
  ],
  [['doctor', 'now'], /Unexpected argument now$/m],
  [['demo', '--fast'], /There is no option --fast$/m],
  [['configure', 'me', '--api-socket', '/s', '--template', '/t'], /Unexpected argument me$/m],
  [['restore', 'vm', '--api-socket', '/s'], /Unexpected argument vm$/m],
  [['completion', 'bash', 'zsh'], /Unexpected argument zsh$/m],
  [['report', '/t', '/u', '--into', '/x.html'], /Unexpected argument \/u$/m],
  [['trace', 'show', '/t', '/u'], /Unexpected argument \/u$/m],
  [['trace', 'check', '/t', '/u'], /Unexpected argument \/u$/m],
  [['trace', 'show'], /trace show takes FILE, and was given nothing$/m],
  [
    ['trace', 'merge', '/t', '--into', '/u'],
    /trace merge takes FILE FILE\.\.\., and was given \/t$/m,
  ],
  [['--socket', '/s', '--snapshot', '/m', 'now'], /Unexpected argument now$/m],
  [
    ['--socket', '/s', '--snapshot', '/m', '--max-guests', '3'],
    /There is no option --max-guests\nSee /,
  ],
  [
    ['--socket', '/s', '--snapshot', '/m', '--report', 'x.pdf'],
    /--report must end with \.html, not "x\.pdf"\nSee /,
  ],
  [['sevre'], /There is no command sevre: give restore, status, .* or completion$/m],
  [['docter'], /There is no command docter; did you mean doctor\?$/m],
  [
    ['trace', 'shw'],
    /There is no command trace shw: give trace show, trace check or trace merge$/m,
  ],
  [['trace'], /trace alone is no command: give trace show, trace check or trace merge$/m],
  [
    ['doctor', '--jsn'],
    /no option --jsn; did you mean --json\?\nSee uffd-rs-serve doctor --help$/m,
  ],
] as const) {
  test(`refused: ${args.join(' ')}`, async (t) => {
    t.regex((await runCommand(t, ...args)).stderr, message)
  })
}
