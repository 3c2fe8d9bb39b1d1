// Restores into a state directory: a guest of its own, that outlives whoever restored it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import test from 'ava'
import { listen } from '../../src/index.js'
import { Firecracker } from '../support/firecracker.js'
import { index, Place } from '../support/place.js'

test('a restored guest is handed over to a server that listens in its directory', async (t) => {
  const place = new Place(t)
  const firecracker = await Firecracker.start(t)
  const { stateDir } = place
  const vm = await firecracker.restore({ stateDir })
  t.is(await firecracker.guest.wrong(0, 8, 'source'), 0)
  t.is((await vm.handOver()).reason, 'handed-over')

  const { socket } = place.options()
  const server = await listen({ socket, stateDir, snapshot: firecracker.snapshot })
  t.teardown(() => server.stop())
  t.deepEqual(
    server.recovered.map(({ id }) => id),
    [vm.guest.id],
  )
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
})

test('a restored guest outlives a process that is killed', async (t) => {
  const place = new Place(t)
  const firecracker = await Firecracker.start(t)
  const { stateDir } = place
  const script = `
    const { restore } = require(${JSON.stringify(index)})
    restore(${JSON.stringify({ ...firecracker.options, stateDir })}).then(() => console.log('up'))`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'exit')

  const { socket } = place.options()
  const server = await listen({ socket, stateDir, snapshot: firecracker.snapshot })
  t.teardown(() => server.stop())
  t.is(server.recovered.length, 1)
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
})

test('a restored guest has a guardian, which serves it when the process is killed', async (t) => {
  const place = new Place(t)
  const firecracker = await Firecracker.start(t)
  const { stateDir } = place
  const options = JSON.stringify({ ...firecracker.options, stateDir, guardian: true })
  const script = `
    const { restore } = require(${JSON.stringify(index)})
    restore(${options}).then(async ({ server }) => {
      while (server.guardian.guarded.length === 0) await new Promise(setImmediate)
      console.log('guarded')
    })`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  await once(child.stdout, 'data')
  child.kill('SIGKILL')
  await once(child, 'exit')
  // No server is there.
  t.is(await firecracker.guest.wrong(0, 8, 'source'), 0)
  await firecracker.guest.ask({ op: 'write', page: 3, count: 2, stamp: 9 })

  const { socket } = place.options()
  const server = await listen({ socket, stateDir, snapshot: firecracker.snapshot })
  t.teardown(() => server.stop())
  t.is(server.recovered.length, 1)
  const verify = { op: 'verify', page: 3, count: 2, expect: [{ stamp: 9 }] }
  t.is((await firecracker.guest.ask<{ wrong: number }>(verify)).wrong, 0)
  t.is(await firecracker.guest.wrong(8, firecracker.pages - 8, 'source'), 0)
})

test('a directory in which guests were left is refused, and they are left alone', async (t) => {
  const place = new Place(t)
  const left = await place.left()
  const firecracker = await Firecracker.start(t)
  const error = await t.throwsAsync(firecracker.restore({ stateDir: place.stateDir }), {
    code: 'ERR_UFFD_RESTORE_LISTEN',
    message: /has guests that were left \(1, such as .*\.ledger\)/,
  })
  t.like(error.cause, { code: 'ERR_UFFD_STATE_DIR_OCCUPIED' })
  const server = await place.here()
  t.is(server.recovered.length, 1)
  t.is(await left.wrong(0, 3, 'source'), 0)
})

test('ledgers of guests that have ended are in nobody’s way', async (t) => {
  const place = new Place(t)
  await (await place.left()).kill()
  const firecracker = await Firecracker.start(t)
  const vm = await firecracker.restore({ stateDir: place.stateDir })
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
  t.is((await vm.stop()).reason, 'stopped')
})

test('a directory that another server has is refused, or waited for until it is given up', async (t) => {
  const place = new Place(t)
  const server = await place.here()
  const firecracker = await Firecracker.start(t)
  const { stateDir } = place
  const refused = await t.throwsAsync(firecracker.restore({ stateDir }))
  t.like(refused.cause, { code: 'ERR_UFFD_STATE_DIR_IN_USE' })
  const giveUp = new AbortController()
  const waiting = t.throwsAsync(
    firecracker.restore({ stateDir, stateDirWait: true, signal: giveUp.signal }),
    { code: 'ERR_UFFD_RESTORE_ABORTED' },
  )
  giveUp.abort()
  await waiting
  const restored = firecracker.restore({ stateDir, stateDirWait: true })
  await server.stop()
  t.is((await (await restored).stop()).reason, 'stopped')
})
