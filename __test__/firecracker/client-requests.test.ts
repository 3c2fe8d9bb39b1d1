import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import test from 'ava'
import { FirecrackerClient } from '../../src/index.js'
import type { FirecrackerApi } from '../support/firecracker-api.js'
import { minorOf, releases, type Route } from '../support/firecracker-api/published.js'
import { temporaryDirectory } from '../support/stage.js'
import { withApi } from '../support/with-api.js'

interface Case {
  readonly route: Route
  /** The first minor version that can do it. */
  readonly since?: number
  readonly prepare?: (api: FirecrackerApi) => void
  readonly call: (client: FirecrackerClient) => Promise<unknown>
  readonly sends?: unknown
  readonly returns?: unknown
}

const bootedWith = (balloon: Record<string, number | boolean>) => (api: FirecrackerApi) => {
  api.vm.balloon = { amount_mib: 16, deflate_on_oom: true, stats_polling_interval_s: 1, ...balloon }
  api.boot()
}

const paused = (api: FirecrackerApi) => {
  api.vm.state = 'Paused'
}

const cases: Record<string, Case> = {
  instanceInfo: {
    route: 'GET /',
    call: async (client) => {
      const { vmmVersion: _, ...info } = await client.instanceInfo()
      return info
    },
    returns: { appName: 'Firecracker', id: 'test-instance', state: 'Not started' },
  },
  machineConfig: {
    route: 'GET /machine-config',
    call: (client) => client.machineConfig(),
    returns: {
      vcpuCount: 1,
      memSizeMib: 128,
      smt: false,
      trackDirtyPages: false,
      cpuTemplate: 'None',
      hugePages: 'None',
    },
  },
  putMachineConfig: {
    route: 'PUT /machine-config',
    call: (client) => client.putMachineConfig({ vcpuCount: 2, memSizeMib: 512, hugePages: '2M' }),
    sends: { vcpu_count: 2, mem_size_mib: 512, huge_pages: '2M' },
  },
  'putMachineConfig with transparent huge pages': {
    route: 'PUT /machine-config',
    since: 17,
    call: (client) =>
      client.putMachineConfig({ vcpuCount: 2, memSizeMib: 512, hugePages: 'Transparent' }),
    sends: { vcpu_count: 2, mem_size_mib: 512, huge_pages: 'Transparent' },
  },
  patchMachineConfig: {
    route: 'PATCH /machine-config',
    call: (client) => client.patchMachineConfig({ trackDirtyPages: true, smt: false }),
    sends: { smt: false, track_dirty_pages: true },
  },
  balloon: {
    route: 'GET /balloon',
    prepare: bootedWith({}),
    call: (client) => client.balloon(),
    returns: { amountMib: 16, deflateOnOom: true, statsPollingIntervalS: 1 },
  },
  'balloon, with its choices': {
    route: 'GET /balloon',
    since: 14,
    prepare: bootedWith({ free_page_reporting: true, free_page_hinting: false }),
    call: (client) => client.balloon(),
    returns: {
      amountMib: 16,
      deflateOnOom: true,
      statsPollingIntervalS: 1,
      freePageReporting: true,
      freePageHinting: false,
    },
  },
  setBalloonTarget: {
    route: 'PATCH /balloon',
    prepare: bootedWith({}),
    call: (client) => client.setBalloonTarget(64),
    sends: { amount_mib: 64 },
  },
  balloonStatistics: {
    route: 'GET /balloon/statistics',
    prepare: bootedWith({}),
    call: async (client) => {
      const { targetPages, actualMib, freeMemory } = await client.balloonStatistics()
      return { targetPages, actualMib, freeMemory }
    },
    returns: { targetPages: 4096, actualMib: 16, freeMemory: 67_108_864 },
  },
  'balloonStatistics, of reclaim': {
    route: 'GET /balloon/statistics',
    since: 14,
    prepare: bootedWith({}),
    call: async (client) => (await client.balloonStatistics()).allocStall,
    returns: 3,
  },
  setBalloonStatisticsInterval: {
    route: 'PATCH /balloon/statistics',
    prepare: bootedWith({}),
    call: (client) => client.setBalloonStatisticsInterval(5),
    sends: { stats_polling_interval_s: 5 },
  },
  startHinting: {
    route: 'PATCH /balloon/hinting/start',
    since: 14,
    prepare: bootedWith({ free_page_hinting: true }),
    call: (client) => client.startHinting(),
  },
  'startHinting, acknowledging': {
    route: 'PATCH /balloon/hinting/start',
    since: 14,
    prepare: bootedWith({ free_page_hinting: true }),
    call: (client) => client.startHinting({ acknowledgeOnStop: false }),
    sends: { acknowledge_on_stop: false },
  },
  hintingStatus: {
    route: 'GET /balloon/hinting/status',
    since: 14,
    prepare: bootedWith({ free_page_hinting: true }),
    call: (client) => client.hintingStatus(),
    returns: { hostCmd: 0, guestCmd: 0 },
  },
  stopHinting: {
    route: 'PATCH /balloon/hinting/stop',
    since: 14,
    prepare: bootedWith({ free_page_hinting: true }),
    call: (client) => client.stopHinting(),
  },
  pause: {
    route: 'PATCH /vm',
    prepare: bootedWith({}),
    call: (client) => client.pause(),
    sends: { state: 'Paused' },
  },
  resume: {
    route: 'PATCH /vm',
    prepare: paused,
    call: (client) => client.resume(),
    sends: { state: 'Resumed' },
  },
  'createSnapshot, full': {
    route: 'PUT /snapshot/create',
    prepare: paused,
    call: (client) => client.createSnapshot({ snapshotPath: '/s', memFilePath: '/m' }),
    sends: { mem_file_path: '/m', snapshot_path: '/s' },
  },
  'createSnapshot, diff': {
    route: 'PUT /snapshot/create',
    prepare: paused,
    call: (client) =>
      client.createSnapshot({ snapshotPath: '/s', memFilePath: '/m', snapshotType: 'Diff' }),
    sends: { mem_file_path: '/m', snapshot_path: '/s', snapshot_type: 'Diff' },
  },
}

for (const release of releases) {
  for (const [name, { route, since = 0, prepare, call, sends, returns }] of Object.entries(cases)) {
    if (minorOf(release) < since) continue
    test(`${release}: ${name}`, async (t) => {
      const { api, client } = await withApi(t, { version: release })
      prepare?.(api)
      t.deepEqual(await call(client), returns)
      t.deepEqual(api.bodies(route), [sends])
    })
  }

  test(`${release}: version`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    t.is(String(await client.version()), release)
    t.is(String(await client.version()), release)
    t.is(api.requests.length, 1, 'it is asked for once')
  })
}

for (const release of releases.filter((one) => minorOf(one) < 14)) {
  test(`${release}: hinting is refused before it is asked for`, async (t) => {
    const { api, client } = await withApi(t, { version: release })
    api.boot()
    for (const call of [
      () => client.startHinting(),
      () => client.hintingStatus(),
      () => client.stopHinting(),
    ]) {
      const error = await t.throwsAsync(call, { code: 'ERR_UFFD_FIRECRACKER_UNSUPPORTED' })
      t.regex(error.message, new RegExp(`needs Firecracker 1\\.14\\.0 .* this is ${release}\\.`))
    }
    t.deepEqual(
      api.requests.map((seen) => seen.route),
      ['GET /version'],
    )
  })
}

test('bodies are sent as JSON of known length, as a simple HTTP server needs them', async (t) => {
  const { api, client } = await withApi(t)
  await client.putMachineConfig({ vcpuCount: 1, memSizeMib: 128 })
  const { headers } = api.requests[0]!
  t.is(headers['content-type'], 'application/json')
  t.is(headers['transfer-encoding'], undefined)
  t.is(headers['content-length'], String('{"vcpu_count":1,"mem_size_mib":128}'.length))
})

test('it hangs up once it has its answer, whoever says that the connection is kept', async (t) => {
  const socketPath = join(temporaryDirectory(t), 'api.sock')
  const ended: Promise<unknown>[] = []
  const server = createServer((socket) => {
    ended.push(once(socket, 'end'))
    socket.once('data', () => {
      socket.write('HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n')
    })
  }).listen(socketPath)
  await once(server, 'listening')
  t.teardown(() => server.close())
  await new FirecrackerClient({ socketPath }).pause()
  await Promise.all(ended)
  t.is(ended.length, 1)
})

test('fields of an answer that nobody knows yet are left alone', async (t) => {
  const { api, client } = await withApi(t)
  api.vm.machineConfig = { ...api.vm.machineConfig, huge_pages: 'Transparent', colour: 'blue' }
  const config = await client.machineConfig()
  t.is(config.hugePages, 'Transparent')
  t.false('colour' in config)
})

test('null in an answer means that the field is absent', async (t) => {
  const { client } = await withApi(t, {
    misbehave: {
      'GET /balloon/hinting/status': { status: 200, text: '{"host_cmd":2,"guest_cmd":null}' },
    },
  })
  t.deepEqual(await client.hintingStatus(), { hostCmd: 2 })
})

const wrong: [
  name: string,
  call: (client: FirecrackerClient) => Promise<unknown>,
  field: string,
][] = [
  ['33 vCPUs', (client) => client.putMachineConfig({ vcpuCount: 33, memSizeMib: 1 }), 'vcpuCount'],
  ['an empty PATCH', (client) => client.patchMachineConfig({}), ''],
  ['a negative target', (client) => client.setBalloonTarget(-1), 'amountMib'],
  ['half a second', (client) => client.setBalloonStatisticsInterval(0.5), 'intervalS'],
  [
    'a snapshot without a path',
    (client) => client.createSnapshot({ snapshotPath: '', memFilePath: 'm' }),
    'snapshotPath',
  ],
  ['a deadline of 0', (client) => client.pause({ timeoutMs: 0 }), 'timeoutMs'],
  ['a signal that is none', (client) => client.pause({ signal: {} as AbortSignal }), 'signal'],
]

for (const [name, call, field] of wrong) {
  test(`refuses ${name} before anything is sent`, async (t) => {
    const { api, client } = await withApi(t)
    await t.throwsAsync(async () => call(client), { code: 'ERR_UFFD_INVALID_OPTION' })
    const error = await t.throwsAsync<Error & { field: string }>(async () => call(client))
    t.is(error.field, field)
    t.deepEqual(api.requests, [])
  })
}
