import type { Stats } from '../../index.js'

/** Statistics that JSON can hold: no guest copies 2^53 bytes. */
export function plainStats({ copiedBytes, ...rest }: Stats) {
  return { ...rest, copiedBytes: Number(copiedBytes) }
}
