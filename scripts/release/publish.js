// Publishes what `npm run pack:release` made: `node scripts/release/publish.js FOLDER [--dry-run]`.
// The platform packages first, as the package depends on them. May be run again halfway: what is
// published is left out if it is the same, and is the end of it if it is not.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'

const [folder, mode] = process.argv.slice(2)
if (folder === undefined || ![undefined, '--dry-run'].includes(mode)) {
  throw new Error('Usage: node scripts/release/publish.js FOLDER [--dry-run]')
}

const npm = (...args) => promisify(execFile)('npm', args)

/** The first npm that publishes for a workflow it trusts, without a token. */
const trusting = [11, 5, 1]

await requireNpm()
for (const tarball of inOrder(readdirSync(folder))) await publish(resolve(folder, tarball))

async function requireNpm() {
  const { stdout } = await npm('--version')
  const version = stdout.trim()
  const numbers = version.split('.').map(Number)
  const differing = trusting.findIndex((number, index) => numbers[index] !== number)
  if (differing >= 0 && numbers[differing] < trusting[differing]) {
    throw new Error(
      `npm is ${version}, and trusted publishing needs ${trusting.join('.')}: update it`,
    )
  }
}

function isMain(name) {
  return /^uffd-rs-\d/.test(name)
}

/** `uffd-rs-linux-…` before `uffd-rs-1.2.3`. */
function inOrder(files) {
  const tarballs = files.filter((name) => name.endsWith('.tgz'))
  if (tarballs.length === 0) throw new Error(`There are no tarballs in ${folder}: pack first`)
  if (!tarballs.some(isMain)) {
    throw new Error(`${folder} has packages of platforms, and not uffd-rs itself: pack again`)
  }
  return [...tarballs.filter((name) => !isMain(name)), ...tarballs.filter(isMain)]
}

async function publish(tarball) {
  const { name, version } = await manifestOf(tarball)
  const own = `sha512-${createHash('sha512').update(readFileSync(tarball)).digest('base64')}`
  const there = await published(`${name}@${version}`)
  if (there === own) return console.log(`${name}@${version} is published already`)
  if (there !== undefined) {
    throw new Error(
      `${name}@${version} is published with other contents (${there}, not ${own}): a version is ` +
        `published once, so raise it and build again`,
    )
  }
  const dry = mode === '--dry-run' ? ['--dry-run'] : []
  await npm('publish', '--provenance', '--access', 'public', ...dry, tarball)
  console.log(`${name}@${version} is published${dry.length > 0 ? ', or would be' : ''}`)
}

async function manifestOf(tarball) {
  const args = ['-xOzf', tarball, join('package', 'package.json')]
  return JSON.parse((await promisify(execFile)('tar', args)).stdout)
}

/** What the registry has under this name, if it has anything. */
async function published(what) {
  try {
    const { stdout } = await npm('view', what, 'dist.integrity')
    return stdout.trim() || undefined
  } catch (error) {
    if (/\bE404\b/.test(error.stderr)) return undefined
    throw error
  }
}
