// A microVM with pages of 2 MiB, from its template to its next snapshot.
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { parseTemplate, pauseAndSnapshot, type RestoreError, Trace } from '../../src/index.js'
import { Firecracker } from '../support/firecracker.js'
import { reserveHugePages } from '../support/huge-pages.js'
import { touches } from '../support/touches.js'
import { warnings } from '../support/warnings.js'

const pages = 8
const pageSize = 2_097_152
const freePages = { page: 6, count: 2 }

async function start(t: ExecutionContext): Promise<Firecracker> {
  await reserveHugePages(t, pages)
  return await startAnother(t)
}

async function startAnother(t: ExecutionContext): Promise<Firecracker> {
  return await Firecracker.start(t, {
    pages,
    pageSize,
    freePages,
    snapshot: {
      machineConfig: { vcpu_count: 1, mem_size_mib: 16, huge_pages: '2M' },
      balloon: { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true },
    },
  })
}

const template = parseTemplate({ firecracker: '1.16.1', memSizeMib: 16, hugePages: '2M' })

test.serial('it is restored, prefetched and served, and gives pages back', async (t) => {
  const firecracker = await start(t)
  const { snapshot } = firecracker
  const prefetch = await Trace.record(touches(4, 1), { snapshot, pageSize })
  const vm = await firecracker.restore({ template, prefetch })
  t.is(vm.guest.pageSize, pageSize)
  t.like(await vm.prefetched, { requested: 2, installed: 2 })
  t.is(await firecracker.guest.wrong(freePages.page, freePages.count, 'zeros'), 0)
  t.is(await firecracker.guest.wrong(0, freePages.page, 'source'), 0)
  t.is((await vm.guest.stats()).removedPages, freePages.count)
})

test.serial('its dirty pages are told by the next snapshot', async (t) => {
  const firecracker = await start(t)
  const vm = await firecracker.restore({ template, dirtyTracking: 'on', faultAround: false })
  await firecracker.guest.ask({ op: 'touch', page: 0, count: 2 })
  await firecracker.guest.ask({ op: 'write', page: 1, stamp: 7 })
  const { pageStates, dirtyPages } = await pauseAndSnapshot(vm, {
    snapshotState: join(firecracker.snapshot, '..', 'new-state'),
    snapshot: join(firecracker.snapshot, '..', 'new-mem'),
    resume: true,
  })
  t.like(pageStates.counts, { unfaulted: 4, faulted: 2, dirty: 1, removed: freePages.count })
  t.like(dirtyPages, { dirtyCount: 1, exact: true })
})

test.serial(
  'one that the pool cannot hold is refused before Firecracker is told anything',
  async (t) => {
    const first = await start(t)
    const other = await startAnother(t)
    const vm = await first.restore({ template })
    // Nothing is installed yet, and all of it may be.
    const error = await t.throwsAsync(other.restore({ template }), {
      code: 'ERR_UFFD_RESTORE_POOL',
    })
    t.like(error, { step: 'pool', vm: 'untouched', cause: { code: 'ERR_UFFD_HUGE_PAGES' } })
    t.regex(error.message, /needs 8 pages of 2 MiB; the pool has 8 free, 8 of them promised/)
    t.regex(error.message, /raise vm.nr_hugepages by 8/)
    t.false(other.routes.some((route) => route === 'PUT /snapshot/load'))
    // What the first has taken is not free, and is not promised any more.
    await first.guest.ask({ op: 'touch', page: 0, count: 3 })
    const later = other.restore({ template })
    await t.throwsAsync(later, { message: /the pool has 5 free, 5 of them promised/ })
    // What it gives back is free, and promised to it again.
    await first.guest.ask({ op: 'madvise', page: 0, count: 2 })
    const again = other.restore({ template })
    await t.throwsAsync(again, { message: /the pool has 7 free, 7 of them promised/ })
    await vm.stop()
    await first.close()
    t.is((await other.restore({ template })).guest.pageSize, pageSize)
  },
)

test.serial('of two restores at once that the pool cannot hold both, one is refused', async (t) => {
  const first = await start(t)
  const other = await startAnother(t)
  const both = [first.restore({ template }), other.restore({ template })]
  const came = await Promise.allSettled(both)
  const refused = came.flatMap((one) =>
    one.status === 'rejected' ? (one.reason as RestoreError).step : [],
  )
  t.deepEqual(refused, ['pool'])
})

test.serial('one that is let in all the same is told of when it arrives', async (t) => {
  const first = await start(t)
  const other = await startAnother(t)
  const told = warnings(t)
  await first.restore({ template })
  const vm = await other.restore({ template, requireHugePages: false })
  t.is(vm.guest.pageSize, pageSize)
  const warning = await told.next()
  t.is(warning.code, 'ERR_UFFD_HUGE_PAGES')
  t.regex(warning.message, /needs 8 pages of 2 MiB; the pool has 8 free, 8 of them promised/)
})
