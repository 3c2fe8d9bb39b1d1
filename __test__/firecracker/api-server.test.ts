import { Readable } from 'node:stream'
import test, { type ExecutionContext } from 'ava'
import { Client } from 'undici'
import { FirecrackerApi, type FirecrackerApiOptions } from '../support/firecracker-api.js'
import {
  endpoints,
  minorOf,
  releases,
  type Endpoint,
  type Route,
} from '../support/firecracker-api/published.js'

async function start(t: ExecutionContext, options?: FirecrackerApiOptions) {
  const api = await FirecrackerApi.start(options)
  const http = new Client('http://localhost', { socketPath: api.socketPath })
  t.teardown(async () => {
    await http.destroy()
    await api.close()
  })
  const ask = async (route: string, body?: unknown) => {
    const [method, path] = route.split(' ') as ['GET' | 'PUT' | 'PATCH', string]
    const answer = await http.request({
      method,
      path,
      body: body === undefined ? null : JSON.stringify(body),
    })
    const text = await answer.body.text()
    const json = (text === '' ? {} : JSON.parse(text)) as { fault_message?: string }
    return { status: answer.statusCode, fault: json.fault_message }
  }
  return { api, ask }
}

const load = {
  snapshot_path: '/s',
  mem_backend: { backend_type: 'Uffd', backend_path: '/b' },
}
const balloon = { amount_mib: 0, deflate_on_oom: true }

for (const release of releases) {
  const minor = minorOf(release)

  test(`${release}: endpoints that are not described do not exist`, async (t) => {
    const { api, ask } = await start(t, { version: release })
    api.boot()
    for (const [route, { since = 0 }] of Object.entries(endpoints) as [Route, Endpoint][]) {
      const { fault = '' } = await ask(route)
      t.is(fault.startsWith('No such method and path'), minor < since, route)
    }
    t.is((await ask('PUT /balloons')).status, 400)
  })

  test(`${release}: fields that are not described are refused`, async (t) => {
    const { ask } = await start(t, { version: release })
    for (const name of ['free_page_reporting', 'free_page_hinting']) {
      const { status } = await ask('PUT /balloon', { ...balloon, [name]: false })
      t.is(status, minor < 14 ? 400 : 204, name)
    }
  })

  for (const [name, since, value] of [
    ['network_overrides', 12, [{ iface_id: 'a', host_dev_name: 'b' }]],
    ['track_dirty_pages', 13, true],
    ['vsock_override', 16, { uds_path: '/v' }],
    ['clock_realtime', 16, true],
    ['enable_diff_snapshots', 0, true],
    ['huge_pages', 17, '2M'],
  ] as const) {
    test(`${release}: loading with ${name} is ${minor < since ? 'refused' : 'possible'}`, async (t) => {
      const { ask } = await start(t, { version: release })
      const { status, fault } = await ask('PUT /snapshot/load', { ...load, [name]: value })
      t.is(status, minor < since ? 400 : 204)
      if (minor < since)
        t.regex(fault ?? '', new RegExp(`unknown field \`${name}\`, expected one of`))
    })
  }

  if (minor >= 14) {
    test(`${release}: hinting is answered with ${minor < 16 ? 200 : 204}`, async (t) => {
      const { api, ask } = await start(t, { version: release })
      api.vm.balloon = { ...balloon, free_page_hinting: true }
      api.boot()
      t.is((await ask('PATCH /balloon/hinting/start')).status, minor < 16 ? 200 : 204)
      t.is((await ask('PATCH /balloon/hinting/stop')).status, minor < 16 ? 200 : 204)
    })
  }
}

const refused: [name: string, route: Route, body: unknown, fault: RegExp][] = [
  ['an unknown field', 'PUT /balloon', { ...balloon, colour: 1 }, /unknown field `colour`/],
  ['a missing field', 'PUT /balloon', { amount_mib: 0 }, /missing field `deflate_on_oom`/],
  ['a wrong type', 'PUT /balloon', { ...balloon, amount_mib: '0' }, /invalid type: "0"/],
  ['null', 'PUT /balloon', { ...balloon, amount_mib: null }, /invalid type: null/],
  ['a fraction', 'PUT /balloon', { ...balloon, amount_mib: 0.5 }, /invalid type: 0.5/],
  ['a negative number', 'PUT /balloon', { ...balloon, amount_mib: -1 }, /-1 is out of range/],
  [
    'too large a balloon',
    'PUT /balloon',
    { ...balloon, amount_mib: 129 },
    /larger than the memory/,
  ],
  ['no body', 'PUT /balloon', undefined, /it is empty/],
  ['a body where none belongs', 'GET /balloon', {}, /has no body/],
  [
    'an unknown backend',
    'PUT /snapshot/load',
    { snapshot_path: '/s', mem_backend: { backend_type: 'Tape', backend_path: '/b' } },
    /unknown variant `Tape`/,
  ],
  ['two backends', 'PUT /snapshot/load', { ...load, mem_file_path: '/m' }, /Exactly one of/],
  ['no backend', 'PUT /snapshot/load', { snapshot_path: '/s' }, /Exactly one of/],
  [
    'an unknown field inside',
    'PUT /snapshot/load',
    { ...load, network_overrides: [{ iface_id: 'a', host_dev_name: 'b', mac: 'c' }] },
    /unknown field `mac`/,
  ],
  [
    'a list that is none',
    'PUT /snapshot/load',
    { ...load, network_overrides: {} },
    /expected a sequence/,
  ],
  ['33 vCPUs', 'PUT /machine-config', { vcpu_count: 33, mem_size_mib: 1 }, /33 is out of range/],
  [
    'odd huge pages',
    'PUT /machine-config',
    { vcpu_count: 1, mem_size_mib: 1, huge_pages: '2M' },
    /multiple of 2/,
  ],
  ['an empty PATCH', 'PATCH /machine-config', {}, /nothing in this PATCH/],
]

for (const [name, route, body, fault] of refused) {
  test(`refuses ${name}`, async (t) => {
    const { ask } = await start(t)
    const answer = await ask(route, body)
    t.is(answer.status, 400)
    t.regex(answer.fault ?? '', fault)
  })
}

test('refuses what a small HTTP server does not understand', async (t) => {
  const { api } = await start(t)
  const put = async (headers: Record<string, string>, body: string | Iterable<string>) => {
    const http = new Client('http://localhost', { socketPath: api.socketPath })
    const answer = await http.request({
      method: 'PUT',
      path: '/balloon',
      headers,
      body: Readable.from(body),
    })
    const text = await answer.body.text()
    await http.destroy()
    return text
  }
  t.regex(await put({}, [JSON.stringify(balloon)]), /known length/)
  const long = JSON.stringify(balloon).padEnd(51_201)
  t.regex(await put({ 'content-length': '51201' }, [long]), /51201 bytes, 51200 at most/)
})

test('before boot there is nothing to pause, to write or to hint', async (t) => {
  const { ask } = await start(t)
  const files = { snapshot_path: '/s', mem_file_path: '/m' }
  for (const [route, body] of [
    ['PATCH /vm', { state: 'Paused' }],
    ['PUT /snapshot/create', files],
    ['PATCH /balloon/hinting/start', undefined],
  ] as const) {
    t.is((await ask(route, body)).fault, 'Not supported before the microVM started.')
  }
})

test('after boot nothing can be configured or loaded', async (t) => {
  const { api, ask } = await start(t)
  api.boot()
  for (const [route, body] of [
    ['PUT /balloon', balloon],
    ['PUT /machine-config', { vcpu_count: 1, mem_size_mib: 1 }],
    ['PATCH /machine-config', { vcpu_count: 2 }],
    ['PUT /snapshot/load', load],
  ] as const) {
    t.is((await ask(route, body)).fault, 'Not supported after the microVM started.')
  }
})

test('a snapshot is loaded into a fresh Firecracker only', async (t) => {
  const { ask } = await start(t)
  await ask('PUT /machine-config', { vcpu_count: 1, mem_size_mib: 128 })
  t.regex((await ask('PUT /snapshot/load', load)).fault ?? '', /before anything else is configured/)
})

test('a snapshot is written of a paused microVM only', async (t) => {
  const { api, ask } = await start(t)
  const files = { snapshot_path: '/s', mem_file_path: '/m' }
  api.boot()
  t.regex((await ask('PUT /snapshot/create', files)).fault ?? '', /to be paused/)
  t.is((await ask('PATCH /vm', { state: 'Paused' })).status, 204)
  t.is((await ask('PUT /snapshot/create', files)).status, 204)
})

test('hinting needs the flag the balloon was made with', async (t) => {
  const { api, ask } = await start(t)
  await ask('PUT /balloon', balloon)
  api.boot()
  t.regex((await ask('PATCH /balloon/hinting/start')).fault ?? '', /not enabled/)
})

test('statistics cannot be turned on after boot', async (t) => {
  const { api, ask } = await start(t)
  await ask('PUT /balloon', balloon)
  api.boot()
  t.regex((await ask('GET /balloon/statistics')).fault ?? '', /not enabled/)
  const interval = { stats_polling_interval_s: 1 }
  t.regex((await ask('PATCH /balloon/statistics', interval)).fault ?? '', /after boot/)
})

test('the hooks see what happens, in order', async (t) => {
  const seen: string[] = []
  const note = (what: string) => async (detail: unknown) => {
    seen.push(`${what} ${typeof detail === 'string' ? detail : ''}`.trim())
  }
  const { ask } = await start(t, {
    onLoadSnapshot: note('load'),
    onState: note('state'),
    onBalloon: note('balloon'),
    onHinting: note('hinting'),
    onCreateSnapshot: note('create'),
    snapshot: { balloon: { ...balloon, free_page_hinting: true } },
  })
  await ask('PUT /snapshot/load', { ...load, resume_vm: true })
  await ask('PATCH /balloon', { amount_mib: 8 })
  await ask('PATCH /balloon/hinting/start')
  await ask('PATCH /balloon/hinting/stop')
  await ask('PATCH /vm', { state: 'Paused' })
  await ask('PUT /snapshot/create', { snapshot_path: '/s', mem_file_path: '/m' })
  t.deepEqual(seen, [
    'load',
    'state Running',
    'balloon',
    'hinting start',
    'hinting stop',
    'state Paused',
    'create',
  ])
})
