import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { dirname } from 'node:path'
import { systemReason } from '../system-error.js'

/** Why no file can be made at a path, as far as its directory says so. */
export async function whyNotIn(path: string): Promise<string | undefined> {
  try {
    // The dot makes sure that it is a directory.
    await access(`${dirname(path)}/.`, constants.W_OK | constants.X_OK)
    return undefined
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    return isMissing ? 'its directory does not exist: make it first' : systemReason(error)
  }
}
