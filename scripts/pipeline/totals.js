// Reads from what test runners print how many tests passed and failed.

/** Counts of tests. */
const counts = (passed = 0, failed = 0, skipped = 0) => ({ passed, failed, skipped })

const matches = (output, pattern) => [...output.matchAll(pattern)]

/** What cargo colours its output with. */
// oxlint-disable-next-line no-control-regex
const plain = (output) => output.replaceAll(/\u001B(?:\[[\d;]*m|\(B)/g, '')

/** Of `cargo test`: one line for each test binary and each crate's examples in documentation. */
export function ofCargo(output) {
  const results = /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;/gm
  return matches(plain(output), results)
    .map(([, ...numbers]) => counts(...numbers.map(Number)))
    .reduce(sum, counts())
}

/** Of a TAP stream: one line a test, those of subtests indented. */
export function ofTap(output) {
  const total = counts()
  for (const [, not, , directive] of matches(
    plain(output),
    /^(not )?ok\b([^#\n]*)(?:# *(\w+))?/gm,
  )) {
    if (/^(?:skip|todo)/i.test(directive ?? '')) total.skipped++
    else if (not === undefined) total.passed++
    else total.failed++
  }
  return total
}

export function sum(one, other) {
  return counts(one.passed + other.passed, one.failed + other.failed, one.skipped + other.skipped)
}

/** The one line at the end. */
export const line = ({ passed, failed }) => `${passed} passed, ${failed} failed`
