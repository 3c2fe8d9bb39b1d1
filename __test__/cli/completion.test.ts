// The shells themselves complete. Where one is not installed, its tests say that they tried nothing.
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { commands } from '../../src/cli/commands.js'
import { type Shell, shells } from '../../src/cli/completion/shells.js'
import { table } from '../../src/cli/completion/table.js'
import { runCommand } from '../support/command.js'
import { temporaryDirectory } from '../support/stage.js'

const run = promisify(execFile)

async function has(shell: Shell): Promise<boolean> {
  return await run(shell, ['-c', ':']).then(
    () => true,
    () => false,
  )
}

/** Has a shell complete the last word of a line. */
const completing: Record<Shell, (script: string, words: readonly string[]) => Promise<string[]>> = {
  async bash(script, words) {
    const line = words.map((word) => `'${word}'`).join(' ')
    const ask = `source ${script}; COMP_WORDS=(uffd-rs-serve ${line}); COMP_CWORD=${words.length}
_uffd_rs_serve; printf '%s\\n' "\${COMPREPLY[@]}"`
    return lines(await run('bash', ['--norc', '-c', ask]))
  },
  async zsh(script, words) {
    // What the completion system would be given: the words, and the specifications of options.
    const line = words.map((word) => `'${word}'`).join(' ')
    const ask = `compdef() { : }; compadd() { shift; print -l -- "$@" }
_arguments() { print -l -- "$words[1]" "$@" }
source ${script}; words=(uffd-rs-serve ${line}); CURRENT=${words.length + 1}; _uffd_rs_serve`
    return lines(await run('zsh', ['-f', '-c', ask]))
  },
  async fish(script, words) {
    const ask = `source ${script}; complete -C 'uffd-rs-serve ${words.join(' ')}'`
    const found = lines(await run('fish', ['--no-config', '-c', ask]))
    return found.map((line) => line.split('\t')[0]!)
  },
}

const lines = ({ stdout }: { stdout: string }) => stdout.split('\n').filter(Boolean)

async function complete(t: ExecutionContext, shell: Shell, ...words: string[]) {
  const script = join(temporaryDirectory(t), 'script')
  writeFileSync(script, shells[shell](table(commands)))
  return await completing[shell](script, words)
}

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  test(`${shell} completes commands, options and their values`, async (t) => {
    if (!(await has(shell))) {
      t.pass(`there is no ${shell} here`)
      return
    }
    const first = await complete(t, shell, '')
    for (const { name } of commands) {
      if (name !== '') t.true(first.includes(name.split(' ')[0]!), name)
    }
    t.deepEqual((await complete(t, shell, 'trace', '')).toSorted(), ['check', 'merge', 'show'])
    const found = (words: string[], option: string) => words.some((word) => word.startsWith(option))
    const serving = await complete(t, shell, '--')
    for (const option of ['--socket', '--snapshot', '--no-json', '--config']) {
      t.true(found(serving, option), option)
    }
    t.false(found(serving, '--api-socket'))
    t.true(found(await complete(t, shell, 'restore', '--'), '--api-socket'))
    const merging = await complete(t, shell, 'trace', 'merge', '--')
    t.true(found(merging, '--into'))
    t.false(found(merging, '--socket'))
  })
}

test('values are completed with their words', async (t) => {
  for (const shell of ['bash', 'fish'] as const) {
    if (!(await has(shell))) continue
    const words = await complete(t, shell, '--on-unservable', '')
    t.deepEqual(words.toSorted(), ['fail', 'kill', 'poison'], shell)
  }
  t.pass()
})

test('the command prints the scripts, and knows no other shell', async (t) => {
  for (const shell of ['bash', 'zsh', 'fish'] as const) {
    const { status, stdout } = await runCommand(t, 'completion', shell)
    t.is(status, 0)
    t.is(stdout.trim(), shells[shell](table(commands)).trim())
  }
  const { status, stderr } = await runCommand(t, 'completion', 'tcsh')
  t.is(status, 2)
  t.regex(stderr, /SHELL must be bash, zsh or fish, not tcsh/)
})
