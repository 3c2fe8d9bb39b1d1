import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import native from '#native'
import { Clones, type StartVm } from '../examples/clones/src/clones.js'
import { deadlineMs, GuestProcess } from './support/guest.js'
import { snapshotFile } from './support/stage.js'

const pages = 512
/** What a clone needs first. */
const needed = { page: 32, count: 64 }

/** Our guest program in the place of Firecracker: resumed, it touches what a clone needs. */
function standIn(t: ExecutionContext) {
  const processes: GuestProcess[] = []
  const startVm: StartVm = async (_clone, socket) => {
    const process = await GuestProcess.start(socket, String(pages))
    t.teardown(() => process.kill())
    processes.push(process)
    return {
      pid: process.pid,
      resume: async () => void (await process.ask({ op: 'touch', ...needed })),
      kill: async () => void (await process.kill()),
    }
  }
  return { startVm, processes }
}

function place(t: ExecutionContext) {
  t.timeout(deadlineMs)
  const snapshot = snapshotFile(t, pages)
  const directory = dirname(snapshot)
  return { snapshot, socket: join(directory, 'uffd.sock'), trace: join(directory, 'trace') }
}

test('clones: the first ones record a trace, the next ones are prefetched with it', async (t) => {
  const where = place(t)
  const first = await Clones.open({ ...where, startVm: standIn(t).startVm })
  t.teardown(() => first.close())
  for (const { prefetched } of await first.resume(2)) t.is(prefetched, undefined)
  t.true((await first.saveTrace()) > 0)
  await first.close()

  const { startVm, processes } = standIn(t)
  const next = await Clones.open({ ...where, startVm })
  t.teardown(() => next.close())
  const clones = await next.resume(5)
  t.is(clones.length, 5)
  for (const { guest, vm, prefetched } of clones) {
    t.is(guest.pid, vm.pid)
    t.true(prefetched!.installed > 0)
    t.is(prefetched!.installed + prefetched!.present, prefetched!.requested)
    t.true((await guest.stats()).prefaultPages > 0)
  }
  for (const process of processes) t.is(await process.wrong(0, pages, 'source'), 0)
  await next.close()
  for (const { guest } of clones) t.is((await guest.ended).reason, 'guest-exited')
  t.false(existsSync(where.socket))
})

test('clones: if one cannot be started none is left', async (t) => {
  const { startVm, processes } = standIn(t)
  const clones = await Clones.open({
    ...place(t),
    startVm: async (clone, socket) => {
      if (clone === 1) throw new Error('no such kernel')
      return await startVm(clone, socket)
    },
  })
  t.teardown(() => clones.close())
  await t.throwsAsync(clones.resume(3), { message: 'no such kernel' })
  for (const process of processes) t.throws(() => globalThis.process.kill(process.pid, 0))
})

test('clones: the trace of another snapshot is refused before anything is started', async (t) => {
  const where = place(t)
  const { startVm, processes } = standIn(t)
  const clones = await Clones.open({ ...where, startVm })
  t.teardown(() => clones.close())
  await clones.resume(1)
  await clones.saveTrace()
  await clones.close()

  native.writeGuestSnapshot({ path: where.snapshot, pages, seed: 5 })
  await t.throwsAsync(Clones.open({ ...where, startVm }), {
    code: 'ERR_UFFD_TRACE_WRONG_SNAPSHOT',
  })
  t.is(processes.length, 1)
})
