import { FirecrackerUnsupportedError } from './errors.js'
import { type Template } from './template.js'
import { type FirecrackerVersion } from './version.js'

/**
 * Refuses a Firecracker that is older than the one a template is for, before any of its features
 * is looked at: it cannot read the snapshots of the newer one either.
 */
export function requireVersionOf({ firecracker }: Template, version: FirecrackerVersion): void {
  if (version.atLeast(firecracker)) return
  const wayOut = 'make the template and its snapshot with this version'
  throw new FirecrackerUnsupportedError('The template', `${firecracker}`, version, wayOut)
}
