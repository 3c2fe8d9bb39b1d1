/** What the exit status of the command says. */
export const exitStatus = {
  /** All went well: no guest failed. */
  ok: 0,
  /** Something failed: a guest, or the start. */
  failed: 1,
  /** The command line cannot be obeyed. */
  usage: 2,
} as const
