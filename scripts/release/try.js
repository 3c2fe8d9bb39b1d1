// Tries what would be published, on the platform that this runs on: `node scripts/release/try.js
// FOLDER`, where `npm run pack:release` has put the tarballs. It installs them in an empty folder, as
// a user would, and serves a guest from there. With `--installed` FOLDER is where that was done before.
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

const [folder, mode] = process.argv.slice(2)
if (folder === undefined || ![undefined, '--installed'].includes(mode)) {
  throw new Error('Usage: node scripts/release/try.js FOLDER [--installed]')
}

/** What Node.js says of the C library it was linked with: glibc has a version there, musl has none. */
const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? 'musl' : 'gnu'
const platform = `${process.platform}-${process.arch}-${libc}`

const patienceMs = 600_000

if (mode === '--installed') {
  await tryIn(resolve(folder))
} else {
  const empty = mkdtempSync(join(tmpdir(), 'uffd-rs-try-'))
  try {
    await install(empty)
    await tryIn(empty)
  } finally {
    rmSync(empty, { recursive: true, force: true })
  }
}
console.log(`uffd-rs-${platform} on Node.js ${process.version}: loads, and serves a guest`)

async function install(into) {
  writeFileSync(join(into, 'package.json'), '{ "private": true }')
  const tarballs = [/^uffd-rs-\d.*\.tgz$/, new RegExp(`^uffd-rs-${platform}-\\d.*\\.tgz$`)].map(
    tarball,
  )
  await must('npm', ['install', '--no-audit', '--no-fund', ...tarballs], into)
}

function tarball(pattern) {
  const found = readdirSync(folder).filter((name) => pattern.test(name))
  if (found.length === 1) return resolve(folder, found[0])
  throw new Error(`${folder} has ${found.length} files like ${pattern.source}, and one is needed`)
}

async function tryIn(installed) {
  const node = (...args) => must(process.execPath, args, installed)
  const { version } = JSON.parse(
    readFileSync(join(installed, 'node_modules/uffd-rs/package.json'), 'utf8'),
  )
  const cli = 'node_modules/uffd-rs/dist/cli.js'
  const loads = /^function\n$/
  const imported = "import { listen } from 'uffd-rs'; console.log(typeof listen)"
  prints('import', loads, await node('--input-type=module', '--eval', imported))
  prints('require', loads, await node('--eval', "console.log(typeof require('uffd-rs').listen)"))
  const ofVersion = new RegExp(`\\b${version.replaceAll('.', '\\.')}\\b`)
  prints('--version', ofVersion, await node(cli, '--version'))
  prints('The guardian', ofVersion, await must(guardianIn(installed), ['--version'], installed))
  prints('The demo', /✓ Every byte was right/, await node(cli, 'demo'))
}

function prints(what, expected, printed) {
  if (!expected.test(printed)) throw new Error(`${what} printed something else:\n${printed}`)
}

function guardianIn(installed) {
  return join(installed, `node_modules/uffd-rs-${platform}/uffd-rs-guardian.${platform}`)
}

async function must(program, args, cwd) {
  try {
    return (await promisify(execFile)(program, args, { cwd, timeout: patienceMs })).stdout
  } catch (error) {
    const { stdout = '', stderr = '' } = error
    throw new Error(`${program} ${args.join(' ')} failed:\n${stdout}${stderr}`, { cause: error })
  }
}
