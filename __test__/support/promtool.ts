import { spawnSync } from 'node:child_process'
import { type ExecutionContext } from 'ava'

/** Has promtool look at what it is given; where there is none the test says that it tried nothing. */
export function promtoolIsContent(t: ExecutionContext, args: string[], input = ''): void {
  const promtool = process.env['UFFD_TEST_PROMTOOL'] ?? 'promtool'
  const { status, error, stdout, stderr } = spawnSync(promtool, args, { input, encoding: 'utf8' })
  if (error !== undefined) {
    t.log('skipped: there is no promtool here')
    t.pass()
    return
  }
  t.is(status, 0, stdout + stderr)
  // It says what it does not like without failing for it.
  t.is(stderr, '')
}
