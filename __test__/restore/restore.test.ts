// restore() with Firecrackers of every version: what they are told, and what the guest reads.
import { once } from 'node:events'
import { existsSync, statSync } from 'node:fs'
import { connect } from 'node:net'
import test from 'ava'
import {
  FirecrackerClient,
  parseTemplate,
  readTemplate,
  restore,
  type RestoreOptions,
} from '../../src/index.js'
import { minorOf, releases } from '../support/firecracker-api/published.js'
import { Firecracker } from '../support/firecracker.js'

for (const release of releases) {
  test(`${release}: one call, and the guest reads its snapshot`, async (t) => {
    const firecracker = await Firecracker.start(t, { version: release })
    const vm = await firecracker.restore({ trackDirtyPages: true })
    t.deepEqual(firecracker.routes, [
      'GET /version',
      'GET /',
      'PUT /snapshot/load',
      'GET /machine-config',
      'GET /balloon',
      'PATCH /vm',
    ])
    const tracked = minorOf(release) < 13 ? 'enable_diff_snapshots' : 'track_dirty_pages'
    t.deepEqual(firecracker.api.bodies('PUT /snapshot/load'), [
      {
        snapshot_path: firecracker.options.snapshotState,
        mem_backend: { backend_type: 'Uffd', backend_path: firecracker.socket },
        resume_vm: false,
        [tracked]: true,
      },
    ])
    t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
    const { sourcePages, zeroPages } = await vm.guest.stats()
    t.is(sourcePages + zeroPages, firecracker.pages)
    t.is(vm.guest.pid, firecracker.guest.pid)
    t.is(vm.version.toString(), release)
    t.is(vm.machineConfig.memSizeMib, 128)
    t.is(vm.balloon, undefined)
    t.true(vm.resumed)
    t.is(firecracker.api.vm.state, 'Running')
    t.false(existsSync(firecracker.socket), 'nobody else is let in')
    await firecracker.guest.exit()
    t.is((await vm.ended).reason, 'guest-exited')
  })
}

test('resumed by the load itself', async (t) => {
  const firecracker = await Firecracker.start(t)
  const vm = await firecracker.restore({ resume: 'at-load' })
  t.like(firecracker.api.bodies('PUT /snapshot/load')[0], { resume_vm: true })
  t.false(firecracker.routes.includes('PATCH /vm'))
  t.is(firecracker.api.vm.state, 'Running')
  t.true(vm.resumed)
})

test('left paused', async (t) => {
  const firecracker = await Firecracker.start(t)
  const vm = await firecracker.restore({ resume: false })
  t.false(firecracker.routes.includes('PATCH /vm'))
  t.is(firecracker.api.vm.state, 'Paused')
  t.false(vm.resumed)
})

test('overrides reach the load', async (t) => {
  const firecracker = await Firecracker.start(t, { version: '1.16.1' })
  await firecracker.restore({
    networkOverrides: [{ ifaceId: 'eth0', hostDevName: 'tap7' }],
    vsockOverride: { udsPath: '/run/vm-7/vsock' },
    clockRealtime: true,
  })
  t.like(firecracker.api.bodies('PUT /snapshot/load')[0], {
    network_overrides: [{ iface_id: 'eth0', host_dev_name: 'tap7' }],
    vsock_override: { uds_path: '/run/vm-7/vsock' },
    clock_realtime: true,
  })
})

test('other pages than in the snapshot', async (t) => {
  const firecracker = await Firecracker.start(t, { version: '1.17.0-dev' })
  const template = parseTemplate({
    firecracker: '1.17.0',
    memSizeMib: 128,
    freePageReporting: false,
  })
  const vm = await firecracker.restore({ template, hugePages: 'Transparent' })
  t.like(firecracker.api.bodies('PUT /snapshot/load')[0], { huge_pages: 'Transparent' })
  t.is(vm.machineConfig.hugePages, 'Transparent')
})

test('a client of ones own stays open', async (t) => {
  const firecracker = await Firecracker.start(t)
  const client = new FirecrackerClient({ socketPath: firecracker.api.socketPath })
  const { apiSocket: _, ...options } = firecracker.options
  const vm = await restore({ ...options, client })
  t.is(vm.client, client)
  await vm.stop()
  t.is((await client.instanceInfo()).state, 'Running')
  client.close()
})

test('stopping ends what was started, and leaves Firecracker alone', async (t) => {
  const firecracker = await Firecracker.start(t)
  const vm = await firecracker.restore()
  await vm[Symbol.asyncDispose]()
  t.is((await vm.ended).reason, 'stopped')
  await t.throwsAsync(vm.client.instanceInfo(), { code: 'ERR_UFFD_FIRECRACKER_CLOSED' })
  t.is(firecracker.api.vm.state, 'Running')
  t.is((await vm.stop()).reason, 'stopped', 'it may be called again')
})

test('a socket of another name, and another owner', async (t) => {
  let owner: unknown
  const firecracker = await Firecracker.start(t, {
    onLoadSnapshot: async () => {
      const { uid, gid } = statSync(socket)
      owner = { uid, gid }
    },
  })
  const socket = `${firecracker.api.socketPath}-7`
  // Only root can give files away.
  const [uid, gid] = process.getuid!() === 0 ? [7, 8] : [process.getuid!(), process.getgid!()]
  await firecracker.restore({ socket, socketOwner: { uid, gid } })
  t.deepEqual(owner, { uid, gid })
  t.like(firecracker.api.bodies('PUT /snapshot/load')[0], {
    mem_backend: { backend_type: 'Uffd', backend_path: socket },
  })
})

test('who only looks whether somebody listens is not taken for Firecracker', async (t) => {
  const firecracker = await Firecracker.start(t, {
    onLoadSnapshot: async () => {
      const looker = connect(firecracker.socket)
      looker.end().resume()
      await once(looker, 'close')
    },
  })
  await firecracker.restore()
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
})

test('an abort after the restore changes nothing', async (t) => {
  const firecracker = await Firecracker.start(t)
  const aborting = new AbortController()
  await firecracker.restore({ signal: aborting.signal })
  aborting.abort()
  t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0)
})

const wrong: [name: string, options: RestoreOptions, message: RegExp][] = [
  ['no Firecracker', { apiSocket: undefined }, /either apiSocket or client/],
  ['no state', { snapshotState: undefined }, /"snapshotState" is missing: expected a path/],
  ['no memory', { snapshot: undefined }, /"snapshot" is missing: expected a path/],
  ['a resume that is none', { resume: 'later' as never }, /"resume".*true, false or "at-load"/],
  ['no trace', { prefetch: 7 as never }, /"prefetch".*a trace or the file of one/],
  ['no template', { template: { firecracker: '1.14.1' } as never }, /"template".*readTemplate/],
  ['a socket too long', { socket: `/${'x'.repeat(107)}` }, /"socket".*at most 107 bytes/],
  ['a misspelt option', { trackDirtyPage: true } as never, /Did you mean "trackDirtyPages"/],
  ['an option of listen', { faultAround: 'much' as never }, /"faultAround"/],
  ['a deadline of none', { timeouts: { loadMs: 0 } }, /"timeouts.loadMs"/],
]

for (const [name, options, message] of wrong) {
  test(`refused before anything else: ${name}`, async (t) => {
    const firecracker = await Firecracker.start(t)
    await t.throwsAsync(restore({ ...firecracker.options, ...options }), {
      name: 'UffdValidationError',
      code: 'ERR_UFFD_INVALID_OPTION',
      message,
    })
    t.deepEqual(firecracker.routes, [])
  })
}

test('a template that is not there', async (t) => {
  const firecracker = await Firecracker.start(t)
  const template = `${firecracker.snapshot}.json`
  await t.throwsAsync(readTemplate(template), { code: 'ERR_UFFD_INVALID_TEMPLATE' })
  await t.throwsAsync(restore({ ...firecracker.options, template }), {
    code: 'ERR_UFFD_RESTORE_TEMPLATE',
    message: /Cannot read the template/,
  })
  t.deepEqual(firecracker.routes, [])
})
