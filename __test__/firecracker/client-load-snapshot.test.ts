import test from 'ava'
import type { SnapshotLoad } from '../../src/index.js'
import { minorOf, releases } from '../support/firecracker-api/published.js'
import { withApi } from '../support/with-api.js'

const load: SnapshotLoad = { snapshotPath: '/vmstate', backendPath: '/uffd.sock' }
const loadBody = {
  snapshot_path: '/vmstate',
  mem_backend: { backend_type: 'Uffd', backend_path: '/uffd.sock' },
}

const options: [name: string, since: number, ours: Partial<SnapshotLoad>, published: object][] = [
  [
    'networkOverrides',
    12,
    { networkOverrides: [{ ifaceId: 'eth0', hostDevName: 'tap7' }] },
    { network_overrides: [{ iface_id: 'eth0', host_dev_name: 'tap7' }] },
  ],
  [
    'vsockOverride',
    16,
    { vsockOverride: { udsPath: '/vsock' } },
    { vsock_override: { uds_path: '/vsock' } },
  ],
  ['clockRealtime', 16, { clockRealtime: true }, { clock_realtime: true }],
  ['hugePagesOnLoad', 17, { hugePages: '2M' }, { huge_pages: '2M' }],
]

const wayOuts: Partial<Record<string, string>> = {
  hugePagesOnLoad: 'leave hugePages out: they are as in the snapshot',
}

for (const release of releases) {
  test(`${release}: loads with the Uffd backend and stays paused`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    await client.loadSnapshot(load)
    t.deepEqual(api.bodies('PUT /snapshot/load'), [loadBody])
    t.is((await client.instanceInfo()).state, 'Paused')
  })

  test(`${release}: resumes at once if told to`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    await client.loadSnapshot({ ...load, resumeVm: true })
    t.deepEqual(api.bodies('PUT /snapshot/load'), [{ ...loadBody, resume_vm: true }])
    t.is((await client.instanceInfo()).state, 'Running')
  })

  test(`${release}: asks for dirty tracking by the name it has there`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    await client.loadSnapshot({ ...load, trackDirtyPages: true })
    const name = minorOf(release) < 13 ? 'enable_diff_snapshots' : 'track_dirty_pages'
    t.deepEqual(api.bodies('PUT /snapshot/load'), [{ ...loadBody, [name]: true }])
  })

  for (const [name, since, ours, published] of options) {
    const has = minorOf(release) >= since
    test(`${release}: ${name} is ${has ? 'sent' : 'refused'}`, async (t) => {
      const { api, client } = await withApi(t, { version: release })
      const asked = client.loadSnapshot({ ...load, ...ours })
      if (has) {
        await asked
        t.deepEqual(api.bodies('PUT /snapshot/load'), [{ ...loadBody, ...published }])
      } else {
        const error = await t.throwsAsync(asked, { code: 'ERR_UFFD_FIRECRACKER_UNSUPPORTED' })
        t.is(
          error.message,
          `${name} needs Firecracker 1.${since}.0 or later, but this is ${release}. ` +
            `Upgrade Firecracker, or ${wayOuts[name] ?? `leave ${name} out`}`,
        )
        t.deepEqual(api.bodies('PUT /snapshot/load'), [])
      }
    })
  }

  test(`${release}: what is not asked for is not sent`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    await client.loadSnapshot({
      ...load,
      networkOverrides: [],
      clockRealtime: false,
      hugePages: 'Snapshot',
    })
    t.deepEqual(api.bodies('PUT /snapshot/load'), [loadBody])
  })
}

test('does not return before the handoff is done', async (t) => {
  let finishHandoff = (): void => {}
  const handoff = new Promise<void>((resolve) => {
    finishHandoff = resolve
  })
  const { api, client } = await withApi(t, { onLoadSnapshot: () => handoff })
  let loaded = false
  const loading = client.loadSnapshot(load).then(() => (loaded = true))
  await api.arrived('PUT /snapshot/load')
  t.false(loaded)
  finishHandoff()
  await loading
  t.is(api.vm.state, 'Paused')
})

test('a backend that is not there fails the load, and Firecracker ends', async (t) => {
  const { client } = await withApi(t, {
    onLoadSnapshot: () => Promise.reject(new Error('Cannot connect to the backend.')),
  })
  await t.throwsAsync(client.loadSnapshot(load), {
    code: 'ERR_UFFD_FIRECRACKER_HTTP',
    message: /answered 400: Cannot connect to the backend\./,
  })
})

test('tells the balloon and the memory of the restored guest', async (t) => {
  const { client } = await withApi(t, {
    snapshot: {
      machineConfig: { vcpu_count: 2, mem_size_mib: 256, huge_pages: '2M' },
      balloon: { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true },
    },
  })
  await client.loadSnapshot(load)
  t.is((await client.machineConfig()).hugePages, '2M')
  t.true((await client.balloon()).freePageReporting)
})
