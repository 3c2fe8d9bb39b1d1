// A stage is a name and some work. The first one that fails ends the pipeline.
import { run } from './run.js'

/** A stage failed; its message says what to do, or what was run. */
export class StageError extends Error {}

/** Runs the stages in order. */
export async function inOrder(stages) {
  for (const [name, work] of Object.entries(stages)) {
    console.log(`\n── ${name}`)
    const start = performance.now()
    try {
      await work()
    } catch (error) {
      if (error instanceof StageError) error.message = `✗ ${name}: ${error.message}`
      throw error
    }
    console.log(`✓ ${name} (${((performance.now() - start) / 1000).toFixed(1)} s)`)
  }
}

/** Work that is a program which has to succeed. */
export const command = (program, ...args) => {
  return async () => {
    const { status } = await run(program, args)
    if (status === 0) return
    const line = [program.replace(/.*node_modules\/\.bin\//, 'npx '), ...args].join(' ')
    throw new StageError(`\`${line}\` ended with ${status}`)
  }
}
