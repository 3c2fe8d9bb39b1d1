// All that has to hold, on a fresh clone or a used one: `npm test`. Ends with one line of totals.
// Uses nothing that has to be installed first.
import { build, install } from './pipeline/install.js'
import { tool } from './pipeline/run.js'
import { command, inOrder, StageError } from './pipeline/stage.js'
import { checkFarthest } from './pipeline/targets.js'
import { Tests } from './pipeline/tests.js'
import { line, ofCargo, ofTap } from './pipeline/totals.js'

const tests = new Tests()

try {
  await inOrder({
    'npm packages': install,
    'format of Rust': command('cargo', 'fmt', '--all', '--check'),
    'format of TypeScript, JSON and TOML': command(tool('oxfmt'), '--check'),
    types: command(tool('tsc'), '-p', 'tsconfig.json'),
    'lints of TypeScript': command(tool('oxlint'), '--deny-warnings'),
    licences: command('node', 'scripts/licences.js'),
    // With debug assertions, and with what the Rust tests compile anyway.
    build: build('build:native:debug'),
    'lints of Rust': command('cargo', 'lint'),
    'another target': checkFarthest,
    'tests of Rust': tests.stage(
      ofCargo,
      'cargo',
      'test',
      '--workspace',
      '--locked',
      '--no-fail-fast',
    ),
    'tests of TypeScript': tests.stage(ofTap, tool('ava'), '--tap'),
  })
} catch (error) {
  if (!(error instanceof StageError)) throw error
  console.error(`\n${error.message}`)
  process.exitCode = 1
} finally {
  console.log(`\n${line(tests.total)}`)
}
