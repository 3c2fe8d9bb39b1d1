// A microVM with pages of 2 MiB, from its template to its next snapshot.
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { parseTemplate, pauseAndSnapshot, Trace } from '../../src/index.js'
import { Firecracker } from '../support/firecracker.js'
import { reserveHugePages } from '../support/huge-pages.js'
import { touches } from '../support/touches.js'

const pages = 8
const pageSize = 2_097_152
const freePages = { page: 6, count: 2 }

async function start(t: ExecutionContext): Promise<Firecracker> {
  await reserveHugePages(t, pages)
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
