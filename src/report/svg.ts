/** Text inside of HTML or SVG, whatever it holds. */
export function escaped(words: string): string {
  return words
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
}

/** A drawing that is as wide as its place; `label` says what it shows to whoever cannot see it. */
export function svg(width: number, height: number, label: string, inside: string): string {
  return (
    `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(label)}">` +
    `${inside}</svg>`
  )
}

/** A rectangle of a class of the style sheet. */
export function rect(
  x: number,
  y: number,
  width: number,
  height: number,
  kind: string,
  more = '',
): string {
  return `<rect x="${n(x)}" y="${n(y)}" width="${n(width)}" height="${n(height)}" class="${kind}"${more}/>`
}

export function text(x: number, y: number, words: string, kind = 'axis', anchor = 'start'): string {
  return `<text x="${n(x)}" y="${n(y)}" class="${kind}" text-anchor="${anchor}">${escaped(words)}</text>`
}

/** Two digits behind the point are finer than any screen. */
export const n = (value: number): string => String(Number(value.toFixed(2)))
