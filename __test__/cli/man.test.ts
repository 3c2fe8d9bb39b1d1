import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { commands } from '../../src/cli/commands.js'
import { page } from '../../src/cli/man/page.js'

const run = promisify(execFile)
const built = fileURLToPath(new URL('../../dist/uffd-rs-serve.1', import.meta.url))

test('the manual page is rendered, without a word from troff, and has every option', async (t) => {
  const isHere = await run('groff', ['--version']).then(
    () => true,
    () => false,
  )
  if (!isHere) {
    t.pass('there is no groff here')
    return
  }
  const { stdout, stderr } = await run('groff', ['-man', '-Tutf8', '-P-cbou', '-ww', built])
  t.is(stderr, '')
  for (const { name, options } of commands) {
    if (name !== '') t.true(stdout.includes(name.toUpperCase()), name)
    for (const option of Object.keys(options)) t.true(stdout.includes(option), option)
  }
})

test('no line of text is taken for a request', (t) => {
  const requests = page().match(/^[.'].*/gm) ?? []
  for (const request of requests) t.regex(request, /^\.(?:TH|SH|B|br|TP|PP)\b/)
})
