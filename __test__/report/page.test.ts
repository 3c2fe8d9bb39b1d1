import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { GuestReport, saveReport } from '../../src/index.js'
import { type RunFacts } from '../../src/report/facts.js'
import { reportPage } from '../../src/report/html.js'
import { cellAt, pictureOfTouches } from '../../src/report/picture.js'
import { terminalMap } from '../../src/report/terminal.js'
import { Stage, temporaryDirectory } from '../support/stage.js'

const touch = (page: number, write = false, filledWith = 'source' as const) => {
  return { page, write, filledWith, timeMicros: page * 10 }
}

const plain: RunFacts = {
  title: 'a run',
  snapshot: undefined,
  pageSize: 4096,
  pages: 100,
  writesAreTracked: true,
  touchesArePrefetched: true,
}

test('a picture of touches has every page in its cell, and no page twice', (t) => {
  const touches = [touch(0), touch(1, true), touch(99), touch(200)]
  const picture = pictureOfTouches(touches, 100, 10)
  t.is(picture.pagesPerCell, 10)
  t.deepEqual(cellAt(picture, 0), { state: 'clean', full: 50 / 254 })
  t.deepEqual(cellAt(picture, 1), { state: 'unfaulted', full: 0 })
  t.is(cellAt(picture, 9)!.state, 'clean')
  t.is(cellAt(picture, 10), undefined)
})

test('a single page of a million that could not be had is seen', (t) => {
  const shares = Uint8Array.from([254, 200, 0, 0, 0, 1])
  t.deepEqual(cellAt({ pagesPerCell: 1e6, shares }, 0), { state: 'poisoned', full: 1 })
})

test('a map for the terminal has a line for each row, and darker cells where more was touched', (t) => {
  const touches = Array.from({ length: 64 }, (_, page) => touch(page))
  const lines = terminalMap(pictureOfTouches(touches, 128, 128), 4096)
  t.deepEqual(lines.slice(0, 2), [`       0 B  ${'█'.repeat(64)}`, `   256 KiB  ${'·'.repeat(64)}`])
  t.regex(lines[2]!, /each character 1 page/)
  t.is(lines.length, 3)
})

test('a page holds no script and nothing from elsewhere, whatever it is told', (t) => {
  const evil = '<script>alert(1)</script>"\'&'
  const end = { reason: 'failed', message: evil } as const
  const page = reportPage({ ...plain, title: evil, snapshot: evil, end, touches: [touch(1)] })
  t.notRegex(page, /<script/)
  t.notRegex(page, /(?:src|href)=|url\(|@import/)
  t.regex(page, /&lt;script&gt;alert\(1\)&lt;\/script&gt;&quot;&#39;&amp;/)
})

test('what is not known is left out, and nothing breaks', (t) => {
  t.notRegex(reportPage(plain), /<section/)
  t.notRegex(reportPage({ ...plain, pages: 1, touches: [] }), /NaN|undefined|Infinity/)
})

test('the report of a guest tells of its memory, touches, latencies and prefetch', async (t) => {
  const stage = await Stage.open(t, 256, { faultAround: false })
  const { guest, process } = await stage.guest()
  const report = new GuestReport(guest, { title: 'Guest 7', snapshot: stage.server.snapshot })
  const ranges = [{ start: 0, end: 32 }]
  report.prefetched(ranges, await guest.prefault(ranges))
  await process.wrong(0, 64, 'source')
  await process.ask({ op: 'madvise', page: 8, count: 4 })
  await process.kill()
  const page = await report.html()
  for (const id of ['map', 'touches', 'latencies', 'prefetch', 'counters']) {
    t.true(page.includes(`<section id="${id}">`), id)
  }
  t.regex(page, /<title>Guest 7<\/title>/)
  t.regex(page, /Memory at the end/)
  t.regex(page, /<th>missed<\/th><td>32<\/td>/)
  t.regex(page, /given back \(16 KiB\)/)
  t.notRegex(page, /NaN|undefined|Infinity/)
  // Its places hold whole pages: the picture is of the end, when there is no session any more.
  t.regex(page, /Each square is 1 page\./)
})

test('a picture may be taken before the end', async (t) => {
  const stage = await Stage.open(t, 64)
  const { guest, process } = await stage.guest()
  const report = new GuestReport(guest)
  await report.takePicture()
  await process.wrong(0, 64, 'source')
  await process.kill()
  const { memory } = await report.facts()
  t.is(memory!.counts.unfaulted, 64)
  t.regex(await report.html(), /never needed \(256 KiB\)/)
})

test('a report takes the place of another, and of nothing else', async (t) => {
  const directory = temporaryDirectory(t)
  const file = join(directory, 'report.html')
  await saveReport(file, reportPage({ ...plain, title: 'first' }))
  await saveReport(file, reportPage({ ...plain, title: 'second' }))
  t.regex(readFileSync(file, 'utf8'), /second/)
  writeFileSync(file, '')
  await saveReport(file, reportPage(plain))

  const precious = join(directory, 'precious.html')
  writeFileSync(precious, '<!doctype html>\n<p>my own')
  const other = join(directory, 'directory.html')
  mkdirSync(other)
  for (const path of [precious, other, join(directory, 'no', 'such', 'report.html')]) {
    await t.throwsAsync(saveReport(path, reportPage(plain)), { code: 'ERR_UFFD_REPORT' }, path)
  }
  t.regex(readFileSync(precious, 'utf8'), /my own/)
  t.deepEqual(readdirSync(directory).toSorted(), ['directory.html', 'precious.html', 'report.html'])
})
