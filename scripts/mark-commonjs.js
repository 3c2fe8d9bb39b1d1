// The package is ESM; this marks the second build, dist/cjs, as CommonJS.
import { writeFileSync } from 'node:fs'

writeFileSync(new URL('../dist/cjs/package.json', import.meta.url), '{ "type": "commonjs" }\n')
