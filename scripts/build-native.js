// Builds the native part into native/: the addon, and the guardian's program beside it. Arguments are
// those of `napi build`: --release, --target TRIPLE, --cross-compile and the like.
import { mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { addonOf, programOf } from './pipeline/native-files.js'
import { root, run, tool } from './pipeline/run.js'

const args = process.argv.slice(2)
const native = join(root, 'native')

async function build(crate, ...more) {
  const manifest = ['--manifest-path', `crates/${crate}/Cargo.toml`]
  const { status } = await run(tool('napi'), ['build', '--no-js', ...manifest, ...more, ...args])
  if (status !== 0) process.exit(Number(status) || 1)
}

// For tests: a service manager, which is no part of the package.
if (!args.includes('--release')) {
  const { status } = await run('cargo', ['build', '--locked', '--package', 'uffd-manager'])
  if (status !== 0) process.exit(Number(status) || 1)
}

/** Built in a folder of its own, so that what is built is known by name. */
const folder = mkdtempSync(join(native, '.build-'))
try {
  const types = ['--no-const-enum', '--dts', 'index.d.cts']
  await build('node', '--platform', '--output-dir', folder, ...types)
  await build('guardian', '--bin', 'uffd-rs-guardian', '--output-dir', folder)
  const addon = readdirSync(folder).find((name) => name.endsWith('.node'))
  renameSync(join(folder, addon), join(native, addonOf(addon)))
  renameSync(join(folder, 'index.d.cts'), join(native, 'index.d.cts'))
  renameSync(join(folder, 'uffd-rs-guardian'), join(native, programOf(addon)))
} finally {
  rmSync(folder, { recursive: true, force: true })
}
