import type { Finding } from './finding.js'

const marks = { good: '✓', limited: '!', bad: '✗' } as const
const colours = { good: 32, limited: 33, bad: 31 } as const
const titleWidth = 34

/** The findings for people. */
export function report(all: readonly Finding[], canServe: boolean, coloured: boolean): string {
  const paint = (verdict: Finding['verdict'], text: string) =>
    coloured ? `\u001B[${colours[verdict]}m${text}\u001B[0m` : text
  const lines = all.flatMap(({ verdict, title, found, lost, change }) => [
    `${paint(verdict, marks[verdict])} ${title.padEnd(titleWidth)}${found}`,
    ...(lost === undefined ? [] : [`    without it: ${lost}`]),
    ...(change === undefined ? [] : [`    to change:  ${change}`]),
  ])
  const verdict = canServe
    ? paint('good', 'Guests can be served here.')
    : paint('bad', 'Guests cannot be served here.')
  return [...lines, '', verdict, ''].join('\n')
}
