// Has the compiler check the native part for every target that is released: C libraries and processors
// differ in types, and a release is late to find that out.
import { readFileSync } from 'node:fs'
import { root, run } from './run.js'
import { command } from './stage.js'

/** Where rustup, or what it would download, is not to be had, it says that it tried nothing. */
export async function checkTargets() {
  const { napi } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8'))
  const added = await run('rustup', ['target', 'add', ...napi.targets])
  if (added.status !== 0) return console.log(`tried nothing: rustup cannot add ${napi.targets}`)
  const targets = napi.targets.flatMap((target) => ['--target', target])
  const packages = ['--package', 'uffd-node', '--package', 'uffd-guardian']
  await command('cargo', 'check', '--locked', ...packages, ...targets)()
}
