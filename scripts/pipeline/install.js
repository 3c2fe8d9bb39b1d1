// Brings what the checkout needs: npm packages in the locked versions, and the native part.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { programOf } from './native-files.js'
import { run, root } from './run.js'
import { command, StageError } from './stage.js'

const readJson = (path) => JSON.parse(readFileSync(`${root}/${path}`, 'utf8'))

/** Whether node_modules holds every locked package in its locked version, and no other. */
export function isInstalled(
  locked = readJson('package-lock.json').packages,
  installed = installedPackages(),
) {
  if (installed === undefined) return false
  const strangers = Object.keys(installed).some((path) => !(path in locked))
  const missing = Object.entries(locked).some(([path, { version, optional, devOptional }]) => {
    if (path === '') return false
    const there = installed[path]
    // Packages for other platforms are locked and never installed.
    return there === undefined ? !optional && !devOptional : there.version !== version
  })
  return !strangers && !missing
}

function installedPackages() {
  const list = 'node_modules/.package-lock.json'
  return existsSync(`${root}/${list}`) ? readJson(list).packages : undefined
}

/** Installs npm packages unless that is done. */
export async function install() {
  const oldest = 20
  if (Number.parseInt(process.versions.node) < oldest) {
    throw new StageError(`Node.js ${oldest} or later is needed, this is ${process.versions.node}`)
  }
  if (isInstalled()) return console.log('node_modules is as package-lock.json says')
  await command('npm', 'ci', '--no-audit', '--no-fund')()
}

/** Builds what is older than its sources: enough to run, whichever profile it was built with. */
export const buildIfStale = (script) => async () => {
  if (!isBuilt()) return await build(script)()
  console.log('the native part is newer than its sources')
  await command('npm', 'run', '--silent', 'build:ts')()
}

const changed = (path) => statSync(`${root}/${path}`).mtimeMs

/** Whether a native part is there, and newer than everything it is made from. */
function isBuilt() {
  const files = readdirSync(`${root}/native`)
  const built = files.filter((name) => name.endsWith('.node') && files.includes(programOf(name)))
  const sources = readdirSync(`${root}/crates`, { recursive: true }).map((path) => `crates/${path}`)
  const newest = Math.max(...[...sources, 'Cargo.toml', 'Cargo.lock'].map(changed))
  return built.some((name) => changed(`native/${name}`) > newest)
}

/** Builds the native part and the TypeScript. Cargo knows what is left to do. */
export const build = (script) => async () => {
  const { status } = await run('cargo', ['--version'], { quiet: true })
  if (status !== 0) throw new StageError('Rust is needed to build the native part: install rustup')
  await command('npm', 'run', '--silent', script)()
  await command('npm', 'run', '--silent', 'build:ts')()
}
