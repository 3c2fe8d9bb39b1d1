// Refuses a release that would go wrong: `node scripts/release/check.js TAG`.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from '../pipeline/run.js'

/** What is in the way of a release with this tag, each with the way out. */
export function problems({ tag, manifest, cargo, changelog }) {
  const { version, repository } = manifest
  const inCargo = /^\[workspace\.package\]\s*\nversion = "([^"]+)"/m.exec(cargo)?.[1]
  return [
    tag !== `v${version}` &&
      `The tag is ${tag}, and package.json has version ${version}: tag v${version}, or set the version`,
    inCargo !== version &&
      `Cargo.toml has version ${inCargo}, and package.json has ${version}: set both`,
    !repositoryUrl(repository) &&
      'package.json has no repository: set "repository" to { "type": "git", "url": "git+https://…" }, ' +
        'the address that npm compares with where the release is built',
    !new RegExp(`^## ${version.replaceAll('.', '\\.')} \\(\\d{4}-\\d{2}-\\d{2}\\)$`, 'm').test(
      changelog,
    ) &&
      `CHANGELOG.md has no heading "## ${version} (YYYY-MM-DD)": write down what changed, and when`,
  ].filter(Boolean)
}

const read = (file) => readFileSync(join(root, file), 'utf8')

const repositoryUrl = (repository) =>
  typeof repository?.url === 'string' && /^git\+https:\/\/[^/]+\/.+/.test(repository.url)

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const found = problems({
    tag: process.argv[2] ?? process.env.GITHUB_REF_NAME,
    manifest: JSON.parse(read('package.json')),
    cargo: read('Cargo.toml'),
    changelog: read('CHANGELOG.md'),
  })
  for (const problem of found) console.error(problem)
  if (found.length > 0) process.exitCode = 1
}
