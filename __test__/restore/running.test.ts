// What happens to a restored microVM later on.
import { truncateSync } from 'node:fs'
import test from 'ava'
import { Firecracker } from '../support/firecracker.js'
import { warnings } from '../support/warnings.js'

const faults = { faultAround: false, onUnservable: 'fail' } as const

test('a VM whose handler cannot go on is killed, if that is wanted', async (t) => {
  const firecracker = await Firecracker.start(t)
  const vm = await firecracker.restore({ ...faults, killOnFailure: true })
  truncateSync(firecracker.snapshot, 4096)
  await t.throwsAsync(firecracker.guest.ask({ op: 'touch', page: 9 }), {
    message: /has exited$/,
  })
  const { reason, error } = await vm.ended
  t.is(reason, 'failed')
  t.like(error, { code: 'ERR_UFFD_PAGE', page: 9 })
})

test.serial('else it waits, and the process is warned if nobody listens', async (t) => {
  const seen = warnings(t)
  const firecracker = await Firecracker.start(t)
  const vm = await firecracker.restore(faults)
  truncateSync(firecracker.snapshot, 4096)
  void firecracker.guest.ask({ op: 'touch', page: 9 }).catch(() => {})
  t.is((await seen.next()).code, 'ERR_UFFD_PAGE')
  t.true(Array.isArray(await firecracker.guest.ask({ op: 'whereabouts' })), 'it is alive')
  t.is((await vm.ended).reason, 'failed')
  t.false(vm.guest.kill(), 'its session has let go of it')
})

test('a guest can be killed, once', async (t) => {
  const firecracker = await Firecracker.start(t)
  const vm = await firecracker.restore()
  t.true(vm.guest.kill())
  t.is((await vm.ended).reason, 'guest-exited')
  await firecracker.guest.exited
  t.false(vm.guest.kill())
})
