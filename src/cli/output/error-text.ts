/** An error as a person reads it: its message, its code, and no stack unless it is a defect. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { code } = error as { code?: unknown }
  if (typeof code === 'string') return `${error.message} (${code})`
  return error.stack ?? error.message
}
