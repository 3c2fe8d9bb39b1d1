import { appendFileSync, copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import native from '#native'
import { Trace, type TraceEntry } from '../src/index.js'
import { snapshotFile, temporaryDirectory } from './support/stage.js'
import { touches } from './support/touches.js'

const pageSize = 4096
const pagesOf = (trace: Trace) => Array.from(trace, ({ page }) => page)

test('a trace is saved and loaded for its snapshot, wherever that lies', async (t) => {
  const snapshot = snapshotFile(t, 64)
  const file = join(temporaryDirectory(t), 'boot.trace')
  const recorded = await Trace.record(touches(9, 3, 4, 5, 40), { snapshot, pageSize })
  await recorded.save(file)

  const copy = `${snapshot}.copy`
  copyFileSync(snapshot, copy)
  const loaded = await Trace.load(file, { snapshot: copy })
  t.deepEqual(pagesOf(loaded), [9, 3, 4, 5, 40])
  t.deepEqual([...loaded], [...recorded])
  t.deepEqual(loaded.pages, [
    { start: 3, end: 6 },
    { start: 9, end: 10 },
    { start: 40, end: 41 },
  ])
  t.is(loaded.snapshot.length, 64n * 4096n)
  t.is(loaded.pageSize, 4096)
  t.is(loaded.length, 5)
  t.is(loaded.at(4)?.page, 40)
  t.is(loaded.at(5), undefined)
  t.is(loaded.summary.pages, 5)
  t.is(loaded.summary.spanMicros, 4)
  t.regex(loaded.createdBy, /^uffd-rs \d/)
  t.is((JSON.parse(loaded.toText()) as { entries: unknown[] }).entries.length, 5)
})

test('a trace is recorded from the entries of another', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const written: TraceEntry[] = [
    { page: 2, write: true, filledWith: 'present', timeMicros: 7 },
    { page: 1, write: false, filledWith: 'zeros', timeMicros: 9 },
  ]
  const one = await Trace.record(written, { snapshot, pageSize })
  t.deepEqual([...(await Trace.record(one, { snapshot, pageSize }))], written)
})

test('whether a snapshot is that of a trace is a question with an answer', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const trace = await Trace.record(touches(1), { snapshot, pageSize })
  t.true(await trace.belongsTo(snapshot))
  t.false(await trace.belongsTo(snapshotFile(t, 17)))
  await t.throwsAsync(trace.belongsTo(`${snapshot}.not`), { code: 'ERR_UFFD_TRACE_SNAPSHOT' })
})

test('traces of several runs become one', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const one = await Trace.record(touches(1, 2), { snapshot, pageSize })
  const other = await Trace.record(touches(2, 3), { snapshot, pageSize })
  t.deepEqual(pagesOf(one.merge('union', [other])), [1, 2, 3])
  t.deepEqual(pagesOf(one.merge('intersection', [other])), [2])

  const stranger = await Trace.record(touches(1), { snapshot: snapshotFile(t, 17), pageSize })
  t.throws(() => one.merge('union', [stranger]), { code: 'ERR_UFFD_TRACE_WRONG_SNAPSHOT' })
})

test('what is no trace of this snapshot is refused by name', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const directory = temporaryDirectory(t)
  const file = join(directory, 'boot.trace')
  const trace = await Trace.record(touches(1), { snapshot, pageSize })
  await trace.save(file)

  const other = join(directory, 'other')
  native.writeGuestSnapshot({ path: other, pages: 16, seed: 1 })
  await t.throwsAsync(Trace.load(file, { snapshot: other }), {
    code: 'ERR_UFFD_TRACE_WRONG_SNAPSHOT',
    message: new RegExp(file),
  })
  await t.throwsAsync(Trace.load(snapshot), { code: 'ERR_UFFD_TRACE_NOT_A_TRACE' })
  await t.throwsAsync(Trace.load(`${file}.not`), { code: 'ERR_UFFD_TRACE_LOAD' })
  await t.throwsAsync(trace.save(join(directory, 'no', 'where')), { code: 'ERR_UFFD_TRACE_SAVE' })
  await t.throwsAsync(Trace.record(touches(16), { snapshot, pageSize }), {
    code: 'ERR_UFFD_TRACE_ENTRY',
  })
  appendFileSync(file, 'x')
  await t.throwsAsync(Trace.load(file), { code: 'ERR_UFFD_TRACE_DAMAGED' })
  writeFileSync(file, '{}')
  await t.throwsAsync(Trace.load(file), { code: 'ERR_UFFD_TRACE_NOT_A_TRACE' })
})

test('wrong arguments are named', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const trace = await Trace.record(touches(1), { snapshot, pageSize })
  const invalid = (field: string) => ({ code: 'ERR_UFFD_INVALID_OPTION', message: RegExp(field) })
  await t.throwsAsync(Trace.load(''), invalid('file'))
  const wrong: [entries: unknown, field: string][] = [
    [7, 'entries'],
    [[1], 'entries\\[0\\]'],
    [[{ ...touches(1)[0], page: -1 }], 'entries\\[0\\].page'],
    [[...touches(1), { ...touches(2)[0], filledWith: 'love' }], 'entries\\[1\\].filledWith'],
    [[{ ...touches(1)[0], timeMicros: Number.NaN }], 'entries\\[0\\].timeMicros'],
  ]
  for (const [entries, field] of wrong) {
    await t.throwsAsync(
      Trace.record(entries as never, { snapshot, pageSize }),
      invalid(`"${field}"`),
    )
  }
  await t.throwsAsync(
    Trace.record(touches(1), { snapshot, pageSize: 8192 as never }),
    invalid('pageSize'),
  )
  await t.throwsAsync(Trace.record(touches(1), { snapshot } as never), invalid('pageSize'))
  await t.throwsAsync(trace.belongsTo(undefined as never), invalid('snapshot'))
  t.throws(() => trace.merge('both' as never, []), invalid('how'))
  t.throws(() => trace.merge('union', [{} as never]), invalid('others'))
})
