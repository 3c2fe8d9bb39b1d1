import { createRequire } from 'node:module'

/**
 * Loads the native part, or throws why it cannot be had. In Node.js 20 nobody can catch what a
 * CommonJS module throws while an ES module imports it, so this comes before any such import.
 */
export function loadNativePart(): void {
  createRequire(import.meta.url)('#native')
}
