// Writes docs/api.md from the types that are published. Run it after `npm run build:ts`.
import { writeFileSync } from 'node:fs'
import { apiPage } from './api/page.js'

writeFileSync(new URL('../docs/api.md', import.meta.url), apiPage())
