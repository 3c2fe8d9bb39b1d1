// Has the compiler check the native part for another processor and another C library: their types
// differ, and a release is late to find that out.
import { readFileSync } from 'node:fs'
import { root, run } from './run.js'
import { command } from './stage.js'

/** Where rustup, or what it would download, is not to be had, it says that it tried nothing. */
export async function checkFarthest() {
  const { napi } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8'))
  const { output } = await run('rustc', ['--version', '--verbose'], { quiet: true })
  const target = farthest(/^host: (\S+)$/m.exec(output)?.[1] ?? '', napi.targets)
  const { status } = await run('rustup', ['target', 'add', target])
  if (status !== 0) return console.log(`tried nothing: rustup cannot add ${target}`)
  const packages = ['--package', 'uffd-node', '--package', 'uffd-guardian']
  await command('cargo', 'check', '--locked', ...packages, '--target', target)()
}

/** The target with which a host has least in common: what only one difference shows, it shows too. */
export function farthest(host, targets) {
  const shared = (target) =>
    target.split('-').filter((part) => host.split('-').includes(part)).length
  return targets.toSorted((a, b) => shared(a) - shared(b))[0]
}
