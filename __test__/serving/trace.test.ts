import test from 'ava'
import { Trace } from '../../src/index.js'

const word = (page: bigint, write: bigint, fill: bigint) => page | (write << 48n) | (fill << 49n)

test('an entry is read from its two words', (t) => {
  const trace = Trace.of(
    BigUint64Array.from([word(5n, 0n, 0n), 1500n, word(2n ** 32n, 1n, 2n), 2n ** 40n]),
  )
  t.is(trace.length, 2)
  t.deepEqual(
    [...trace],
    [
      { page: 5, write: false, filledWith: 'source', timeMicros: 1.5 },
      { page: 2 ** 32, write: true, filledWith: 'zeros', timeMicros: 2 ** 40 / 1000 },
    ],
  )
  const fills = [0n, 1n, 2n, 3n].map((fill) => Trace.of(BigUint64Array.of(word(0n, 0n, fill), 0n)))
  t.deepEqual(
    fills.map((one) => one.at(0)?.filledWith),
    ['source', 'source-zeros', 'zeros', 'present'],
  )
})

test('traces are joined in order', (t) => {
  const one = (page: bigint) => Trace.of(BigUint64Array.of(page, 0n))
  const joined = Trace.concat([one(3n), Trace.of(new BigUint64Array()), one(1n)])
  t.deepEqual(
    [...joined].map(({ page }) => page),
    [3, 1],
  )
})

test('half an entry is refused', (t) => {
  t.throws(() => Trace.of(BigUint64Array.of(1n)), { instanceOf: TypeError })
  t.throws(() => Trace.of([1n, 2n] as never), { instanceOf: TypeError })
})
