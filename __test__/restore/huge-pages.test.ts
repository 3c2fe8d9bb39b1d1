// A microVM with pages of 2 MiB, from its template to its next snapshot.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import test, { type ExecutionContext } from 'ava'
import {
  listen,
  parseTemplate,
  pauseAndSnapshot,
  type RestoreError,
  Trace,
} from '../../src/index.js'
import { Firecracker, type Played } from '../support/firecracker.js'
import { freeHugePages, giveHugePages, reserveHugePages } from '../support/huge-pages.js'
import { touches } from '../support/touches.js'
import { warnings } from '../support/warnings.js'

const pages = 8
const pageSize = 2_097_152
const freePages = { page: 6, count: 2 }

async function start(t: ExecutionContext): Promise<Firecracker> {
  await reserveHugePages(t, pages)
  return await startAnother(t)
}

async function startAnother(t: ExecutionContext, played: Played = {}): Promise<Firecracker> {
  return await Firecracker.start(t, {
    ...played,
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
    const vm = await first.restore({ template, faultAround: false })
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

test.serial('one whose fault loop does not answer keeps no other waiting', async (t) => {
  const first = await start(t)
  const other = await startAnother(t)
  const vm = await first.restore({ template, faultAround: false })
  await first.guest.ask({ op: 'touch', page: 0, count: 3 })
  await vm.guest.settle()
  // As one that the kernel holds up.
  Object.assign(vm.guest, { stats: () => new Promise(() => {}) })
  await t.throwsAsync(other.restore({ template }), {
    code: 'ERR_UFFD_RESTORE_POOL',
    message: /the pool has 5 free, 5 of them promised/,
  })
})

for (const traced of [false, true]) {
  const by = traced ? 'only a trace speaks of 2 MiB' : 'nobody speaks'
  test.serial(`one of whose pages ${by} is refused before it runs`, async (t) => {
    const first = await start(t)
    const other = await startAnother(t)
    const { snapshot } = other
    const prefetch = traced ? await Trace.record(touches(4, 1), { snapshot, pageSize }) : undefined
    await first.restore({ template })
    const error = await t.throwsAsync<RestoreError>(other.restore({ prefetch }), {
      code: 'ERR_UFFD_RESTORE_POOL',
      message: /that was loaded needs 8 pages of 2 MiB; the pool has 8 free, 8 of them promised/,
    })
    t.like(error, { step: 'pool', vm: 'unusable', cause: { code: 'ERR_UFFD_HUGE_PAGES' } })
    t.true(other.routes.includes('PUT /snapshot/load'))
    t.false(other.routes.includes('PATCH /vm'))
    await first.close()
    const again = await startAnother(t)
    t.is((await again.restore()).guest.pageSize, pageSize)
  })
}

test.serial('of two such at once that the pool cannot hold both, the later one is', async (t) => {
  const both = [await start(t), await startAnother(t)]
  const came = await Promise.allSettled(both.map(async (one) => await one.restore()))
  const refused = came.flatMap((one) =>
    one.status === 'rejected' ? (one.reason as RestoreError).step : [],
  )
  t.deepEqual(refused, ['pool'])
})

const loaded = [
  { made: 'None', as: '2M', size: pageSize, count: pages },
  { made: '2M', as: 'None', size: 4096, count: pages * 512 },
] as const
for (const { made, as, size, count } of loaded) {
  test.serial(`one made with pages ${made} and loaded as ${as} is served as that`, async (t) => {
    if (as === '2M') await reserveHugePages(t, pages)
    const firecracker = await Firecracker.start(t, {
      version: '1.17.0-dev',
      pages: count,
      pageSize: size,
      snapshot: { machineConfig: { vcpu_count: 1, mem_size_mib: 16, huge_pages: made } },
    })
    const wanted = { firecracker: '1.17.0', memSizeMib: 16, freePageReporting: false }
    const vm = await firecracker.restore({
      template: parseTemplate({ ...wanted, hugePages: made }),
      hugePages: as,
      dirtyTracking: 'on',
      faultAround: false,
    })
    t.like(firecracker.api.bodies('PUT /snapshot/load')[0], { huge_pages: as })
    t.is(vm.guest.pageSize, size)
    t.is(vm.machineConfig.hugePages, as)
    t.is(await firecracker.guest.wrong(0, count, 'source'), 0)
    await firecracker.guest.ask({ op: 'write', page: 1, stamp: 7 })
    t.like(await vm.guest.dirtyPages(), { dirtyCount: 1, exact: true })
  })
}

test.serial('a guest is kept paused until the pages of its trace are there', async (t) => {
  await reserveHugePages(t, 0)
  let installed: number | undefined
  const firecracker = await startAnother(t, {
    onState: async (state) => {
      if (state === 'Running') installed = pages - freeHugePages()
    },
  })
  const { snapshot } = firecracker
  const prefetch = await Trace.record(touches(4, 1), { snapshot, pageSize })
  const options = { template, requireHugePages: false, prefetch, prefetchFirstMs: 60_000 }
  const restored = firecracker.restore(options)
  // Checked, and kept: there are no pages yet.
  while (!firecracker.routes.includes('GET /balloon')) await setImmediate()
  giveHugePages(pages)
  const vm = await restored
  t.true(vm.resumed)
  t.is(installed, 2)
})

test.serial('a guest whose pages do not come in time runs without', async (t) => {
  await reserveHugePages(t, 0)
  const firecracker = await startAnother(t)
  const { snapshot } = firecracker
  const prefetch = await Trace.record(touches(4, 1), { snapshot, pageSize })
  const options = { template, requireHugePages: false, prefetch, prefetchFirstMs: 50 }
  const vm = await firecracker.restore(options)
  t.true(vm.resumed)
  t.is((await vm.guest.stats()).pages.faulted, 0)
})

test.serial('a restore whose guest is kept paused can be given up', async (t) => {
  await reserveHugePages(t, 0)
  const firecracker = await startAnother(t)
  const { snapshot } = firecracker
  const prefetch = await Trace.record(touches(4, 1), { snapshot, pageSize })
  const { signal, abort } = aborting()
  const options = { template, requireHugePages: false, prefetch, prefetchFirstMs: 60_000, signal }
  const restored = firecracker.restore(options)
  while (!firecracker.routes.includes('GET /balloon')) await setImmediate()
  abort()
  await t.throwsAsync(restored, { code: 'ERR_UFFD_RESTORE_ABORTED' })
  t.false(firecracker.routes.includes('PATCH /vm'))
})

function aborting() {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort() }
}

test.serial('the snapshot is made ready before a guest of such pages comes', async (t) => {
  const firecracker = await start(t)
  const { snapshot } = firecracker
  const server = await listen({ socket: firecracker.socket, snapshot })
  t.is(mapped(snapshot), 0, 'nobody has said what pages guests have')
  await server.stop()
  const prefetch = await Trace.record(touches(4, 1), { snapshot, pageSize })
  const expecting = await listen({ socket: firecracker.socket, snapshot, prefetch })
  t.teardown(() => expecting.stop())
  // In the background: what the test has just written is in the page cache.
  while (mapped(snapshot) < pages * pageSize) await setImmediate()
})

/** Bytes of a file in this process's page table. */
function mapped(file: string): number {
  const maps = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-)/m)
  const own = maps.filter((map) => map.slice(0, map.indexOf('\n')).endsWith(` ${file}`))
  const kib = own.map((map) => Number(/^Rss: +(\d+) kB$/m.exec(map)?.[1]))
  return kib.reduce((all, each) => all + each, 0) * 1024
}

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
