import { stat } from 'node:fs/promises'
import { bytes } from '../../numbers.js'

/** How large the snapshot is, and how much of it is no hole. */
export async function snapshotSize(snapshot: string) {
  const { size, blocks } = await stat(snapshot)
  const stored = Math.min(size, blocks * 512)
  return {
    facts: { snapshotBytes: size, storedBytes: stored },
    text: ` (${bytes(size)}${stored < size ? `, ${bytes(stored)} of it stored` : ''})`,
  }
}
