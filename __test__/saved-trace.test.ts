import { appendFileSync, copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import native from '#native'
import { SavedTrace, Trace } from '../src/index.js'
import { snapshotFile, temporaryDirectory } from './support/stage.js'

/** First touches of these pages, a microsecond apart. */
const touches = (...pages: number[]) =>
  Trace.of(BigUint64Array.from(pages.flatMap((page, at) => [BigInt(page), BigInt(at) * 1000n])))

test('a trace is saved and loaded for its snapshot, wherever that lies', async (t) => {
  const snapshot = snapshotFile(t, 64)
  const file = join(temporaryDirectory(t), 'boot.trace')
  const recorded = await SavedTrace.record(touches(9, 3, 4, 5, 40), { snapshot })
  await recorded.save(file)

  const copy = `${snapshot}.copy`
  copyFileSync(snapshot, copy)
  const loaded = await SavedTrace.load(file, { snapshot: copy })
  t.deepEqual(
    [...loaded.trace].map(({ page }) => page),
    [9, 3, 4, 5, 40],
  )
  t.deepEqual(loaded.pages, [
    { start: 3, end: 6 },
    { start: 9, end: 10 },
    { start: 40, end: 41 },
  ])
  t.is(loaded.snapshot.length, 64n * 4096n)
  t.is(loaded.snapshot.pageSize, 4096)
  t.is(loaded.summary.pages, 5)
  t.is(loaded.summary.spanMicros, 4)
  t.regex(loaded.createdBy, /^uffd-rs \d/)
  t.is((JSON.parse(loaded.toText()) as { entries: unknown[] }).entries.length, 5)
})

test('traces of several runs become one', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const one = await SavedTrace.record(touches(1, 2), { snapshot })
  const other = await SavedTrace.record(touches(2, 3), { snapshot })
  const pages = (saved: SavedTrace) => [...saved.trace].map(({ page }) => page)
  t.deepEqual(pages(one.merge('union', [other])), [1, 2, 3])
  t.deepEqual(pages(one.merge('intersection', [other])), [2])

  const stranger = await SavedTrace.record(touches(1), { snapshot: snapshotFile(t, 17) })
  t.throws(() => one.merge('union', [stranger]), { code: 'ERR_UFFD_TRACE_WRONG_SNAPSHOT' })
})

test('what is no trace of this snapshot is refused by name', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const directory = temporaryDirectory(t)
  const file = join(directory, 'boot.trace')
  const saved = await SavedTrace.record(touches(1), { snapshot })
  await saved.save(file)

  const other = join(directory, 'other')
  native.writeGuestSnapshot({ path: other, pages: 16, seed: 1 })
  await t.throwsAsync(SavedTrace.load(file, { snapshot: other }), {
    code: 'ERR_UFFD_TRACE_WRONG_SNAPSHOT',
    message: new RegExp(file),
  })
  await t.throwsAsync(SavedTrace.load(snapshot), { code: 'ERR_UFFD_TRACE_NOT_A_TRACE' })
  await t.throwsAsync(SavedTrace.load(`${file}.not`), { code: 'ERR_UFFD_TRACE_LOAD' })
  await t.throwsAsync(saved.save(join(directory, 'no', 'where')), { code: 'ERR_UFFD_TRACE_SAVE' })
  await t.throwsAsync(SavedTrace.record(touches(16), { snapshot }), {
    code: 'ERR_UFFD_TRACE_ENTRY',
  })
  appendFileSync(file, 'x')
  await t.throwsAsync(SavedTrace.load(file), { code: 'ERR_UFFD_TRACE_DAMAGED' })
  writeFileSync(file, '{}')
  await t.throwsAsync(SavedTrace.load(file), { code: 'ERR_UFFD_TRACE_NOT_A_TRACE' })
})

test('wrong arguments are named', async (t) => {
  const snapshot = snapshotFile(t, 16)
  const saved = await SavedTrace.record(touches(1), { snapshot })
  const invalid = (field: string) => ({ code: 'ERR_UFFD_INVALID_OPTION', message: RegExp(field) })
  await t.throwsAsync(SavedTrace.load(''), invalid('file'))
  await t.throwsAsync(SavedTrace.record([] as never, { snapshot }), invalid('trace'))
  await t.throwsAsync(
    SavedTrace.record(touches(1), { snapshot, pageSize: 8192 as never }),
    invalid('pageSize'),
  )
  t.throws(() => saved.merge('both' as never, []), invalid('how'))
  t.throws(() => saved.merge('union', [{} as never]), invalid('others'))
})
