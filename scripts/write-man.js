// Writes the manual page from the command's tables. Part of `npm run build:ts`.
import { writeFileSync } from 'node:fs'
import { page } from '../dist/cli/man/page.js'

writeFileSync(new URL('../dist/uffd-rs-serve.1', import.meta.url), page())
