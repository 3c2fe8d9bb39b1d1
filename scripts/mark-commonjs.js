// The package is ESM; this marks the second build, dist/cjs, as CommonJS, and tells it where the
// native part, the live page and the guest program are.
import { writeFileSync } from 'node:fs'

const write = (name, text) => writeFileSync(new URL(`../dist/cjs/${name}`, import.meta.url), text)
const native = { types: './native.d.cts', default: './native.cjs' }
const page = { default: './page.cjs' }
const program = { default: './guest-program.cjs' }
const imports = { '#native': native, '#page': page, '#guest-program': program }
const manifest = { type: 'commonjs', imports }

write('package.json', `${JSON.stringify(manifest, undefined, 2)}\n`)
write('native.cjs', "module.exports = require('../../native/index.cjs')\n")
write('page.cjs', "module.exports = require('../page/files.cjs')\n")
write(
  'guest-program.cjs',
  "module.exports = require('node:path').join(__dirname, '../guest-program.js')\n",
)
write('native.d.cts', "export * from '../../native/index.cjs'\n")
