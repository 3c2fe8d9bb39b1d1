// The types of the package name the native part by `#native`, which only resolvers know that read
// `imports`. This has them name its file, which all of them find.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { root } from './pipeline/run.js'

const folder = join(root, 'dist')

for (const name of readdirSync(folder, { recursive: true })) {
  if (!/\.d\.c?ts$/.test(name)) continue
  const path = join(folder, name)
  const types = readFileSync(path, 'utf8')
  if (!types.includes("'#native'")) continue
  const native = relative(dirname(path), join(root, 'native/index.cjs'))
  writeFileSync(path, types.replaceAll("'#native'", `'${native}'`))
}
