// Runs a test runner and adds up what it counted.
import { run } from './run.js'
import { StageError } from './stage.js'
import { sum } from './totals.js'

/**
 * Stages of tests and their running total. A run without a test, or with one that was skipped,
 * is a failure: silence must not look like success.
 */
export class Tests {
  total = { passed: 0, failed: 0, skipped: 0 }

  stage(count, program, ...args) {
    return async () => {
      const { status, output } = await run(program, args)
      const counted = count(output)
      const ended = status === 0 ? '' : ` and the runner ended with ${status}`
      // A runner that dies has a failure, whether or not it lived to count it.
      if (status !== 0 && counted.failed === 0) counted.failed = 1
      this.total = sum(this.total, counted)
      if (counted.failed > 0) throw new StageError(`${counted.failed} failed${ended}`)
      if (counted.skipped > 0) throw new StageError(`${counted.skipped} skipped; none may be`)
      if (counted.passed === 0) throw new StageError('no test was run')
    }
  }
}
