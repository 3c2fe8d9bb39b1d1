// Has the compiler check the native part for another processor and another C library: their types
// differ, and a release is late to find that out.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root, run } from './run.js'
import { command, StageError } from './stage.js'

/** Where the standard library of that target is not installed, it says that it tried nothing. */
export async function checkFarthest() {
  const { napi } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8'))
  const target = farthest(
    /^host: (\S+)$/m.exec(await ask('--version', '--verbose'))[1],
    napi.targets,
  )
  const installed = join((await ask('--print', 'sysroot')).trim(), 'lib/rustlib', target, 'lib')
  if (!existsSync(installed)) {
    return console.log(`tried nothing: \`rustup target add ${target}\` has this checked`)
  }
  const packages = ['--package', 'uffd-node', '--package', 'uffd-guardian']
  await command('cargo', 'check', '--locked', ...packages, '--target', target)()
}

async function ask(...args) {
  const { status, output } = await run('rustc', args, { quiet: true })
  if (status === 0) return output
  throw new StageError(`\`rustc ${args.join(' ')}\` ended with ${status}`)
}

/** The target with which a host has least in common: what only one difference shows, it shows too. */
export function farthest(host, targets) {
  const shared = (target) =>
    target.split('-').filter((part) => host.split('-').includes(part)).length
  return targets.toSorted((a, b) => shared(a) - shared(b))[0]
}
