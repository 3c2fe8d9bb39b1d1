/** A column of a table: the sooner it comes, the more it matters. */
export interface Column<Row> {
  readonly title: string
  readonly of: (row: Row) => string
  /** What it shows where there is room for all columns. */
  readonly wide?: (row: Row) => string
}

const gap = 2

/**
 * Rows as lines that are no wider than `width`. Columns that have no room are left out, from the
 * last one on; the first is always there.
 */
export function columnsOf<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  width: number,
): string[] {
  const wide = cellsOf(columns, rows, ({ of, wide: more = of }) => more)
  const cells = total(wide) <= width ? wide : cellsOf(columns, rows, ({ of }) => of)
  while (cells.length > 1 && total(cells) > width) cells.pop()
  const widths = cells.map(widthOf)
  return [undefined, ...rows].map((_, line) =>
    cells
      .map((column, at) => column[line]!.padStart(widths[at]!))
      .join(' '.repeat(gap))
      .slice(0, Math.max(1, width)),
  )
}

/** The cells of each column, its title first. */
const cellsOf = <Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  how: (column: Column<Row>) => (row: Row) => string,
): string[][] => columns.map((column) => [column.title, ...rows.map(how(column))])

const widthOf = (cells: readonly string[]) => Math.max(...cells.map(({ length }) => length))

const total = (columns: readonly (readonly string[])[]) =>
  columns.reduce((sum, cells) => sum + widthOf(cells), gap * (columns.length - 1))
