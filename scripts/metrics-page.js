/**
 * The rows of docs/metrics.md: one a series, from the table of the core.
 *
 * @param {readonly import('#native').Metric[]} table
 * @returns {string}
 */
export function metricRows(table) {
  const rows = table.flatMap(({ name, kind, help, series }) => {
    const sample = kind === 'counter' ? `${name}_total` : name
    if (kind === 'histogram') return [row(sample, labelNames(series), kind, '', help)]
    return series.map(({ labels, field, help: own }, at) => {
      const of = labels.map(({ name: label, value }) => `${label}="${value}"`).join(', ')
      return row(at === 0 ? sample : '', of, at === 0 ? kind : '', field, own ?? help)
    })
  })
  return [
    '| metric | labels | kind | in statistics | what it is |',
    '|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

const code = (text) => (text === '' ? '' : `\`${text}\``)

function row(name, labels, kind, field, help) {
  return `| ${code(name)} | ${code(labels)} | ${kind} | ${code(field)} | ${help} |`
}

/** `kind, filled` */
function labelNames(series) {
  return [...new Set(series.flatMap(({ labels }) => labels.map(({ name }) => name)))].join(', ')
}

/** Where the rows stand in the page. */
export const marks = ['<!-- from the table of the core: npm run docs:metrics -->', '<!-- end -->']

/** The page with these rows in the place of those it has. */
export function pageWith(page, rows) {
  const [start, end] = marks.map((mark) => page.indexOf(mark))
  if (start < 0 || end < start) throw new Error('docs/metrics.md has lost its marks')
  return `${page.slice(0, start)}${marks[0]}\n${rows}\n${page.slice(end)}`
}
