/** Letters that a name must have before it can be the beginning of another. */
const leastOfABeginning = 3

/**
 * The name that a misspelt one stands for: the one it begins, or one that is a slip of the fingers
 * away. None that merely looks alike, since it would mean something else.
 */
export function closest(name: string, known: readonly string[]): string | undefined {
  return begunBy(plain(name), known) ?? nearest(wordsOf(name), known)
}

/** The one known name that starts so, or the one that all others which do start with. */
function begunBy(beginning: string, known: readonly string[]): string | undefined {
  if (beginning.length < leastOfABeginning) return undefined
  const candidates = known.filter((candidate) => plain(candidate).startsWith(beginning))
  const [shortest] = candidates.toSorted((a, b) => a.length - b.length)
  return candidates.every((candidate) => candidate.startsWith(shortest!)) ? shortest : undefined
}

function nearest(words: readonly string[], known: readonly string[]): string | undefined {
  let best: string | undefined
  let bestSlips = Number.POSITIVE_INFINITY
  for (const candidate of known) {
    const slips = slipsBetween(words, wordsOf(candidate))
    if (slips < bestSlips) {
      best = candidate
      bestSlips = slips
    }
  }
  return best
}

/** How many slips lead from one to the other; infinitely many if that cannot have been meant. */
function slipsBetween(from: readonly string[], to: readonly string[]): number {
  // Words that were run together, or torn apart.
  if (from.length !== to.length) return slipsInWord(from.join(''), to.join(''))
  const slips = from.reduce((sum, word, index) => sum + slipsInWord(word, to[index]!), 0)
  return slips > 2 ? Number.POSITIVE_INFINITY : slips
}

function slipsInWord(from: string, to: string): number {
  const slips = editDistance(from, to)
  return slips > allowedIn(from) ? Number.POSITIVE_INFINITY : slips
}

/** Two slips in a short word make another word of it: `docker` is no `socket`. */
function allowedIn({ length }: string): number {
  if (length < 3) return 0
  return length < 8 ? 1 : 2
}

/** `mem_size_mib` and `memSizeMib` are the same mistake away: none. */
function wordsOf(name: string): string[] {
  const words = name
    .replaceAll(/[A-Z]/g, '-$&')
    .toLowerCase()
    .split(/[^a-z\d]/)
  return words.filter((word) => word !== '')
}

const plain = (name: string) => wordsOf(name).join('')

/**
 * Insertions, deletions, replacements, and neighbours that changed places (the optimal string
 * alignment distance), one row at a time.
 */
function editDistance(a: string, b: string): number {
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      const swapped = isSwap ? before[j - 2]! + 1 : Number.POSITIVE_INFINITY
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1, swapped))
    }
    before = row
    row = next
  }
  return row[b.length]!
}
