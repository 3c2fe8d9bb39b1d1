/** The command line cannot be obeyed: exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}
