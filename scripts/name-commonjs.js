// The package is ESM. This gives the files of the second build, dist/cjs, the names of CommonJS modules
// (`.cjs`, `.d.cts`), and has them refer to each other by these.
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './pipeline/run.js'

const folder = join(root, 'dist/cjs')

const references = /((?:\brequire\(|\bfrom |\bimport\()["']\.{1,2}\/[^"']*)\.js(["'])/g

// An older build told what it is by a manifest of its own.
rmSync(join(folder, 'package.json'), { force: true })

for (const name of readdirSync(folder, { recursive: true })) {
  if (!name.endsWith('.js') && !name.endsWith('.d.ts')) continue
  const path = join(folder, name)
  const named = path.replace(/\.js$/, '.cjs').replace(/\.d\.ts$/, '.d.cts')
  renameSync(path, named)
  writeFileSync(named, readFileSync(named, 'utf8').replaceAll(references, '$1.cjs$2'))
}

writeFileSync(
  join(folder, 'guest-program.cjs'),
  "module.exports = require('node:path').join(__dirname, '../guest-program.js')\n",
)
