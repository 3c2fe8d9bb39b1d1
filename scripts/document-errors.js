// Writes docs/errors.md from the codes of the package. Run it after `npm run build:ts`.
import { writeFileSync } from 'node:fs'
import { errorCodes } from '../dist/errors.js'

const rows = Object.entries(errorCodes).map(([code, meaning]) => `| \`${code}\` | ${meaning} |`)

writeFileSync(
  new URL('../docs/errors.md', import.meta.url),
  `# Errors

Every error of this package is a \`UffdError\` with a \`code\`. A code never changes its meaning;
messages may, and say more: what was found, and what to do about it. The end of a guest that failed
carries such an error, and so do refusals. \`npm run docs:errors\` writes this page.

| code | meaning |
|---|---|
${rows.join('\n')}
`,
)
