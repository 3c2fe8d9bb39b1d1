import test from 'ava'
import { line, ofCargo, ofTap, sum } from '../../scripts/pipeline/totals.js'

test('cargo: all test binaries are added up, coloured or not', (t) => {
  const output = `
running 2 tests
test one ... ok
test result: \u001B[32mok\u001B(B\u001B[m. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests uffd_core
test result: FAILED. 40 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s
`
  t.deepEqual(ofCargo(output), { passed: 42, failed: 3, skipped: 1 })
})

test('cargo: what a test prints is no result', (t) => {
  t.deepEqual(ofCargo('the test result: ok. 5 passed; 0 failed; 0 ignored;'), {
    passed: 0,
    failed: 0,
    skipped: 0,
  })
})

test('TAP: tests count, their output and the plan do not', (t) => {
  const output = `TAP version 13
ok 1 - validate › a number
# logged: ok 7 - not a test
not ok 2 - server › a name with # in it
  ---
    message: |
      ok 3 - not a test either
  ...
ok 3 - later # SKIP
ok 4 - much later # TODO
1..4
# tests 3
`
  t.deepEqual(ofTap(output), { passed: 1, failed: 1, skipped: 2 })
})

test('the last line is what totals are read from', (t) => {
  const one = { passed: 1, failed: 0, skipped: 0 }
  t.is(line(sum(one, { passed: 2, failed: 3, skipped: 4 })), '3 passed, 3 failed')
})
