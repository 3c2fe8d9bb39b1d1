// What uffd-rs/testing gives to the tests of an orchestrator: a guest and a Firecracker without KVM.
import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { FirecrackerClient, listen, restore } from '../../src/index.js'
import {
  FirecrackerStandIn,
  GuestProcess,
  type StandInOptions,
  writeSnapshot,
} from '../../src/testing/index.js'
import { deadlineMs } from '../support/guest.js'
import { temporaryDirectory } from '../support/stage.js'

const pages = 64

function place(t: ExecutionContext, memory = {}) {
  t.timeout(deadlineMs)
  const directory = temporaryDirectory(t)
  const snapshot = join(directory, 'mem')
  writeSnapshot({ path: snapshot, pages, ...memory })
  return { snapshot, socket: join(directory, 'uffd.sock'), state: join(directory, 'state') }
}

test('a guest process is served, and tells a wrong page from a right one', async (t) => {
  const { snapshot, socket } = place(t, { seed: 3, zeroPerMille: 500 })
  t.true(statSync(snapshot).blocks * 512 < pages * 4096)
  await using server = await listen({ socket, snapshot })
  await using vm = await GuestProcess.start({ socket, pages, seed: 3, zeroPerMille: 500 })
  const guest = await server.accept()
  t.is(guest.pid, vm.pid)
  t.deepEqual(await vm.touch(0, 8), { pages: 8, poisoned: 0 })
  t.is(await vm.wrongPages(0, pages, 'source'), 0)
  t.is(await vm.wrongPages(0, 1, { stamp: 7 }), 1)
  await vm.write(3, 2, 7)
  t.is(await vm.wrongPages(3, 2, { stamp: 7 }), 0)
  t.is(await vm.wrongPages(3, 2, 'source'), 2)
  await vm.giveBack(3)
  t.is(await vm.wrongPages(3, 1, 'zeros'), 0)
  t.is(await vm.exit(), 0)
  t.is((await guest.ended).reason, 'guest-exited')
  await t.throwsAsync(vm.touch(0), { code: 'ERR_UFFD_TESTING', message: /has exited/ })
})

test('one of another seed has other pages, and a killed one is gone', async (t) => {
  const { snapshot, socket } = place(t)
  await using server = await listen({ socket, snapshot })
  const vm = await GuestProcess.start({ socket, pages, seed: 9 })
  t.is(await vm.wrongPages(0, pages, 'source'), pages)
  await vm.kill()
  await vm.kill()
  t.is(await vm.exited, null)
  t.is((await (await server.accept()).ended).reason, 'guest-exited')
})

test('writes are tracked where a guest registers for that', async (t) => {
  const { snapshot, socket } = place(t)
  await using server = await listen({ socket, snapshot })
  await using vm = await GuestProcess.start({ socket, pages, writeProtection: true })
  const guest = await server.accept()
  t.is(guest.tracking, 'sync')
  await vm.touch(0, pages)
  await vm.write(5, 1, 1)
  const dirty = await guest.dirtyPages()
  t.deepEqual([...dirty.dirtyRanges()], [{ start: 5, end: 6 }])
})

test('a guest process that cannot hand off says why', async (t) => {
  const { socket } = place(t)
  await t.throwsAsync(GuestProcess.start({ socket, pages }), {
    code: 'ERR_UFFD_TESTING',
    message: /The guest process for \S+uffd\.sock gives up: .*/,
  })
  for (const wrong of [
    { socket, pages: 0 },
    { socket, pages: 1, pageSize: 8192 },
    { socket, pages: 1, seeds: 3 },
    { pages: 1 },
  ]) {
    await t.throwsAsync(GuestProcess.start(wrong as never), { code: 'ERR_UFFD_INVALID_OPTION' })
  }
  t.throws(() => writeSnapshot({ path: '/no/such/dir/mem', pages }), { instanceOf: Error })
  t.throws(() => writeSnapshot({ path: '/x', pages: -1 }), { code: 'ERR_UFFD_INVALID_OPTION' })
})

async function standIn(t: ExecutionContext, more: Partial<StandInOptions> = {}) {
  const where = place(t)
  const firecracker = await FirecrackerStandIn.start({ pages, ...more })
  t.teardown(() => firecracker.close())
  const { snapshot, state: snapshotState } = where
  return { firecracker, options: { apiSocket: firecracker.apiSocket, snapshot, snapshotState } }
}

for (const version of ['1.10.1', '1.12.1', '1.16.1']) {
  test(`a stand-in for Firecracker ${version} is restored into, paused, and resumed`, async (t) => {
    const { firecracker, options } = await standIn(t, { version })
    t.is(firecracker.state, 'Not started')
    t.throws(() => firecracker.guest, { code: 'ERR_UFFD_TESTING' })
    await using vm = await restore(options)
    t.is(`${vm.version}`, version)
    t.is(firecracker.state, 'Running')
    t.is(await firecracker.guest.wrongPages(0, pages, 'source'), 0)
    t.is(vm.guest.pid, firecracker.guest.pid)
    await vm.client.pause()
    t.is(firecracker.state, 'Paused')
    t.true(firecracker.requests.some(({ route }) => route === 'PUT /snapshot/load'))
    await firecracker.crash()
    t.is((await vm.guest.ended).reason, 'guest-exited')
    t.true(existsSync(firecracker.apiSocket))
    await firecracker.close()
    t.false(existsSync(firecracker.apiSocket))
  })
}

test('a stand-in misbehaves as it is told', async (t) => {
  const refusing = { status: 400, text: '{"fault_message":"no such file"}' }
  const { firecracker, options } = await standIn(t, {
    misbehave: { 'PUT /snapshot/load': refusing },
  })
  await t.throwsAsync(restore(options), { code: 'ERR_UFFD_RESTORE_LOAD', message: /no such file/ })
  await firecracker.arrived('PUT /snapshot/load')
  const silent = await standIn(t, { misbehave: { 'GET /version': 'hang up' } })
  await using client = new FirecrackerClient({ socketPath: silent.options.apiSocket })
  await t.throwsAsync(client.version(), { code: 'ERR_UFFD_FIRECRACKER_CONNECTION_LOST' })
  for (const wrong of [
    { pages, version: '1.9.0' },
    { pages, version: 7 },
    { pages: 1, x: 1 },
  ]) {
    await t.throwsAsync(FirecrackerStandIn.start(wrong as never), {
      code: 'ERR_UFFD_INVALID_OPTION',
    })
  }
})
