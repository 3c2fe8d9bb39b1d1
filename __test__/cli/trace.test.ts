import { appendFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { Trace } from '../../src/index.js'
import { runCommand } from '../support/command.js'
import { snapshotFile } from '../support/stage.js'
import { touches } from '../support/touches.js'

/** A snapshot, and a trace of it for each list of pages. */
async function traces(t: ExecutionContext, ...lists: number[][]) {
  const snapshot = snapshotFile(t, 32)
  const files = lists.map((_, index) => join(dirname(snapshot), `${index}.trace`))
  for (const [index, pages] of lists.entries()) {
    const trace = await Trace.record(touches(...pages), { snapshot, pageSize: 4096 })
    await trace.save(files[index]!)
  }
  return { snapshot, files }
}

test('a trace is shown to people and to programs', async (t) => {
  const { files } = await traces(t, [3, 4, 9])
  const text = await runCommand(t, 'trace', 'show', files[0]!)
  t.is(text.status, 0)
  t.regex(text.stdout, /pages +3 \(12 KiB\), 0 first written/)
  t.regex(text.stdout, /snapshot +128 KiB in pages of 4 KiB/)
  const json = await runCommand(t, 'trace', 'show', '--json', files[0]!)
  const { entries } = JSON.parse(json.stdout) as { entries: { page: number }[] }
  t.deepEqual(
    entries.map(({ page }) => page),
    [3, 4, 9],
  )
})

test('a trace is checked, alone and against a snapshot', async (t) => {
  const { snapshot, files } = await traces(t, [1])
  const [file] = files
  t.is((await runCommand(t, 'trace', 'check', file!)).status, 0)
  t.is((await runCommand(t, 'trace', 'check', file!, '--snapshot', snapshot)).status, 0)

  const other = snapshotFile(t, 33)
  const wrong = await runCommand(t, 'trace', 'check', file!, '--snapshot', other)
  t.is(wrong.status, 1)
  t.regex(wrong.stderr, /ERR_UFFD_TRACE_WRONG_SNAPSHOT/)

  appendFileSync(file!, 'x')
  const damaged = await runCommand(t, 'trace', 'check', file!)
  t.is(damaged.status, 1)
  t.regex(damaged.stderr, /ERR_UFFD_TRACE_DAMAGED/)
})

test('traces are merged', async (t) => {
  const { files } = await traces(t, [1, 2], [2, 3])
  const into = `${files[0]}.merged`
  const pages = async () => [...(await Trace.load(into))].map(({ page }) => page)
  const union = await runCommand(t, 'trace', 'merge', ...files, '--into', into)
  t.is(union.status, 0)
  t.deepEqual(await pages(), [1, 2, 3])
  await runCommand(t, 'trace', 'merge', ...files, '--into', into, '--intersection')
  t.deepEqual(await pages(), [2])
})
