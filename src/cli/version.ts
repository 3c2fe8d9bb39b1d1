import { readFileSync } from 'node:fs'

/** The version of this package. */
export function version(): string {
  // dist/cli and src/cli are equally far from it.
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}
