// Installs and builds what is missing, then shows the demo: `npm run demo`.
import { buildIfStale, install } from './pipeline/install.js'
import { command, inOrder, StageError } from './pipeline/stage.js'

try {
  await inOrder({
    'npm packages': install,
    build: buildIfStale('build:native'),
    demo: command(process.execPath, 'dist/cli.js', '--demo'),
  })
} catch (error) {
  if (!(error instanceof StageError)) throw error
  console.error(`\n${error.message}`)
  process.exitCode = 1
}
