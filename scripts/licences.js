// Checks that everything this project is built from may be used: `npm run licences`.
import { readFileSync } from 'node:fs'
import { allows } from './licences/spdx.js'
import { root, run } from './pipeline/run.js'

/** What the Apache License 2.0 gets along with in a binary that is passed on. */
const allowed = new Set([
  '0BSD',
  'Apache-2.0',
  'BlueOak-1.0.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'CC0-1.0',
  'ISC',
  'MIT',
  'Unicode-3.0',
  'Unlicense',
  'Zlib',
])

/** Exceptions, each with a reason. */
const exceptions = new Map([
  // The Python licence of a development tool's argument parser; it is not passed on.
  ['argparse', 'PSF-2.0'],
])

async function crates() {
  const args = ['metadata', '--format-version', '1', '--locked']
  const { status, output } = await run('cargo', args, { quiet: true })
  if (status !== 0) throw new Error(`cargo metadata ended with ${status}`)
  return JSON.parse(output).packages
}

function npmPackages() {
  const lock = JSON.parse(readFileSync(`${root}/package-lock.json`, 'utf8'))
  return Object.entries(lock.packages).map(([path, { name, license, version }]) => {
    return { name: name ?? path.replace(/.*node_modules\//, ''), version, license }
  })
}

const all = [...(await crates()), ...npmPackages()]
const refused = all.filter(({ name, license }) => {
  return exceptions.get(name) !== license && !allows(license, allowed)
})
for (const { name, version, license } of refused) {
  console.error(
    `${name} ${version} has the licence ${license ?? 'of no name'}, which is not allowed`,
  )
}
if (refused.length > 0) process.exitCode = 1
else console.log(`${all.length} packages have allowed licences`)
