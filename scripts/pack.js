// Makes the tarballs that publishing uploads: `node scripts/pack.js FOLDER [--only-built]`.
//
// Takes the build as it is. A release needs the native part of every target in native/; with
// --only-built, those that are there will do, which is enough to try the package on this machine.
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { addonOf, programOf } from './pipeline/native-files.js'
import { root, run, tool } from './pipeline/run.js'
import { tooNew } from './release/glibc.js'

const [folder, mode] = process.argv.slice(2)
if (folder === undefined || ![undefined, '--only-built'].includes(mode)) {
  throw new Error('Usage: node scripts/pack.js FOLDER [--only-built]')
}

const stage = resolve(folder, 'stage')
mkdirSync(stage, { recursive: true })

async function must(program, args, cwd = stage) {
  const { status, output } = await run(program, args, { cwd, quiet: true })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}\n${output}`)
  return output
}

/** Packs the package in a folder; returns the tarball's path. */
async function pack(from, into) {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', into]
  const [{ filename }] = JSON.parse(await must('npm', args, from))
  return join(into, filename)
}

// The files of the package, exactly as npm chooses them.
const draft = await pack(root, stage)
await must('tar', ['-xzf', draft, '--strip-components=1'])

const manifestPath = join(stage, 'package.json')
const manifest = JSON.parse(readFileSync(manifestPath, 'utf8'))
if (mode === '--only-built') {
  const built = new Set(readdirSync(join(root, 'native')))
  manifest.napi.targets = manifest.napi.targets.filter((target) => built.has(addonOf(target)))
  writeFileSync(manifestPath, JSON.stringify(manifest, undefined, 2))
}

if (mode === undefined) refuseNewGlibc(manifest.napi.targets)

await must(tool('napi'), ['create-npm-dirs'])
// From a folder with nothing else: a build that was ended halfway leaves files in native/.
const parts = join(resolve(folder), 'parts')
cpSync(join(root, 'native'), parts, {
  recursive: true,
  filter: (from) => !basename(from).startsWith('.'),
})
await must(tool('napi'), ['artifacts', '--output-dir', parts])
// Adds the platform packages to optionalDependencies.
await must(tool('napi'), ['pre-publish', '--skip-optional-publish', '--no-gh-release'])

const platforms = readdirSync(join(stage, 'npm'))
for (const platform of platforms) {
  addProgram(join(stage, 'npm', platform))
  copyFileSync(join(root, 'LICENSE'), join(stage, 'npm', platform, 'LICENSE'))
  console.log(await pack(join(stage, 'npm', platform), resolve(folder)))
}
console.log(await pack(stage, resolve(folder)))

/** What was built for this machine runs on no older one. */
function refuseNewGlibc(targets) {
  for (const addon of targets.map(addonOf)) {
    for (const name of [addon, programOf(addon)]) {
      const why = tooNew(name, readFileSync(join(root, 'native', name)))
      if (why !== undefined) throw new Error(why)
    }
  }
}

/** The guardian's program goes with the addon, in the package of the platform. */
function addProgram(at) {
  const path = join(at, 'package.json')
  const platform = JSON.parse(readFileSync(path, 'utf8'))
  const program = programOf(platform.main)
  copyFileSync(join(root, 'native', program), join(at, program))
  chmodSync(join(at, program), 0o755)
  platform.files.push(program)
  // It has no JavaScript; Node.js need not look for what it would be.
  platform.type = 'commonjs'
  writeFileSync(path, JSON.stringify(platform, undefined, 2))
}
