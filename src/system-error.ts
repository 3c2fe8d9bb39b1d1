/** Why the system refused something, in its words and without its abbreviations. */
export function systemReason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // `ENOENT: no such file or directory, stat '/a'`: the code, the reason, the call.
  const [, reason] = /^E[A-Z0-9]+: (.+?), \w+(?: '.*')?$/s.exec(error.message) ?? []
  return onOneLine(reason ?? error.message)
}

/** It may quote what a file holds: no line, and nothing that a terminal would obey. */
function onOneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').replaceAll(/[\p{C}\u{FFFD}]/gu, '?')
}
