// pauseAndSnapshot(): the order of its requests, the page states it returns, and how it fails.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import {
  pauseAndSnapshot,
  type PauseAndSnapshotError,
  type PauseAndSnapshotOptions,
  type RestoredVm,
  type SnapshotStep,
  type UffdErrorCode,
  type VmAfterSnapshot,
} from '../../src/index.js'
import { type Misbehaviour } from '../support/firecracker-api/misbehaviour.js'
import { type Route } from '../support/firecracker-api/published.js'
import { Firecracker, type Played } from '../support/firecracker.js'

/** What goes wrong; for what the restore asks too, it is said afterwards. */
type Misbehaving = { [route in Route]?: Misbehaviour }

const never = (): Promise<void> => new Promise(() => {})

async function restored(t: ExecutionContext, played: Played = {}) {
  const firecracker = await Firecracker.start(t, played)
  const vm = await firecracker.restore({ faultAround: false, dirtyTracking: 'on' })
  const files = {
    snapshotState: join(firecracker.snapshot, '..', 'new-state'),
    snapshot: join(firecracker.snapshot, '..', 'new-mem'),
  }
  const before = firecracker.routes.length
  const routes = () => firecracker.routes.slice(before)
  return { firecracker, vm, files, routes }
}

const inOrder = ['GET /balloon', 'PATCH /vm', 'GET /', 'PUT /snapshot/create']

test('in order, and resumed only if that is wanted', async (t) => {
  const { firecracker, vm, files, routes } = await restored(t)
  const made = await pauseAndSnapshot(vm, files)
  t.deepEqual(routes(), inOrder)
  t.deepEqual(firecracker.api.bodies('PUT /snapshot/create'), [
    { snapshot_path: files.snapshotState, mem_file_path: files.snapshot },
  ])
  t.false(made.resumed)
  t.is(firecracker.api.vm.state, 'Paused')
  t.true((await pauseAndSnapshot(vm, { ...files, type: 'Diff', resume: true })).resumed)
  t.deepEqual(routes(), [...inOrder, ...inOrder, 'PATCH /vm'])
  t.like(firecracker.api.bodies('PUT /snapshot/create')[1], { snapshot_type: 'Diff' })
  t.is(firecracker.api.vm.state, 'Running')
})

test('the states are those of the guest, not those after Firecracker read everything', async (t) => {
  const { firecracker, vm, files } = await restored(t)
  const { guest, pages } = firecracker
  await guest.ask({ op: 'touch', page: 0, count: 3 })
  await guest.ask({ op: 'write', page: 10, count: 2, stamp: 7 })
  await guest.ask({ op: 'madvise', page: 20, count: 4 })
  const { pageStates, dirtyPages } = await pauseAndSnapshot(vm, files)
  t.like(pageStates.counts, { unfaulted: pages - 9, faulted: 5, dirty: 2, removed: 4 })
  t.is(pageStates.stateOf(20), 'removed')
  t.is(pageStates.stateOf(30), 'unfaulted')
  t.like(dirtyPages, { dirtyCount: 2, exact: true })
  const after = (await vm.guest.pageStates()).counts
  t.is(after.unfaulted, 0, 'reading the memory has installed it')
  t.is(after.faulted, pages)
})

test('one at a time: a second one tells the microVM nothing', async (t) => {
  const { vm, files, routes } = await restored(t)
  const other = {
    snapshotState: `${files.snapshotState}-2`,
    snapshot: `${files.snapshot}-2`,
  }
  const [first, second] = await Promise.allSettled([
    pauseAndSnapshot(vm, files),
    pauseAndSnapshot(vm, other),
  ])
  const refused = [first, second].filter(({ status }) => status === 'rejected')
  t.like(refused, { length: 1, 0: { reason: { code: 'ERR_UFFD_PAUSE_AND_SNAPSHOT_BUSY' } } })
  t.deepEqual(routes(), inOrder)
  await t.notThrowsAsync(pauseAndSnapshot(vm, other), 'the next one may')
})

test('what Firecracker writes while it makes the snapshot is dirty too', async (t) => {
  const { firecracker, vm, files } = await restored(t, {
    onCreateSnapshot: async () => {
      await firecracker.guest.ask({ op: 'write', page: 40, stamp: 9 })
    },
  })
  const { pageStates, dirtyPages } = await pauseAndSnapshot(vm, files)
  t.is(pageStates.stateOf(40), 'unfaulted')
  t.like(dirtyPages, { dirtyCount: 1, exact: true })
})

test('without dirty tracking, only what was installed before can be dirty', async (t) => {
  const firecracker = await Firecracker.start(t)
  const vm = await firecracker.restore({ faultAround: false, dirtyTracking: 'off' })
  await firecracker.guest.ask({ op: 'touch', page: 0, count: 3 })
  const files = { snapshotState: '/s/state', snapshot: '/s/mem' }
  const { dirtyPages } = await pauseAndSnapshot({ client: vm.client, guest: vm.guest }, files)
  t.like(dirtyPages, { dirtyCount: 3, exact: false })
})

test('pages that are given back while it is pausing are in the states', async (t) => {
  let isPaused = false
  const { firecracker, vm, files } = await restored(t, {
    onState: async (state) => {
      isPaused = state === 'Paused'
      // A device of Firecracker has this in hand when the vCPUs stop.
      if (isPaused) await firecracker.guest.ask({ op: 'madvise', page: 5, count: 2 })
    },
  })
  const { pageStates } = await pauseAndSnapshot(vm, files)
  t.true(isPaused)
  t.is(pageStates.counts.removed, 2)
})

for (const isHinting of [true, false]) {
  const what = isHinting ? 'a run of hinting is stopped first' : 'hinting that does not run is left'
  test(what, async (t) => {
    const balloon = { amount_mib: 0, deflate_on_oom: true, free_page_hinting: true }
    const { vm, files, routes } = await restored(t, { snapshot: { balloon } })
    if (isHinting) await vm.client.startHinting()
    await pauseAndSnapshot(vm, files)
    const asked = routes().slice(isHinting ? 1 : 0)
    const stop = isHinting ? ['PATCH /balloon/hinting/stop'] : []
    t.deepEqual(asked, [inOrder[0], 'GET /balloon/hinting/status', ...stop, ...inOrder.slice(1)])
  })
}

test('the file the guest is served from is never written over', async (t) => {
  const { firecracker, vm, files, routes } = await restored(t)
  const { snapshot } = firecracker
  const { client, guest } = vm
  for (const target of [vm, { client, guest }]) {
    for (const name of ['snapshot', 'snapshotState'] as const) {
      await t.throwsAsync(pauseAndSnapshot(target, { ...files, [name]: snapshot }), {
        code: 'ERR_UFFD_INVALID_OPTION',
        message: new RegExp(`"${name}" to be another file than the one the guest is served from`),
      })
    }
  }
  t.deepEqual(routes(), [])
  t.true(existsSync(snapshot))
})

test('options are checked', async (t) => {
  const { vm, files, routes } = await restored(t)
  const bad: [unknown, unknown, RegExp][] = [
    [{}, files, /"vm.client"/],
    [vm, {}, /"snapshotState"/],
    [vm, { ...files, type: 'full' }, /"type"/],
    [vm, { ...files, snapshot: files.snapshotState }, /"snapshot" to be another file than/],
    [vm, { ...files, timeouts: { settleMs: -1 } }, /"timeouts.settleMs"/],
  ]
  for (const [target, options, message] of bad) {
    await t.throwsAsync(pauseAndSnapshot(target as RestoredVm, options as never), {
      code: 'ERR_UFFD_INVALID_OPTION',
      message,
    })
  }
  t.deepEqual(routes(), [])
})

interface Expected {
  readonly step: SnapshotStep
  readonly vm: VmAfterSnapshot
  readonly state?: string
  readonly code?: UffdErrorCode
  readonly message?: RegExp
}

async function fails(
  t: ExecutionContext,
  firecracker: Firecracker,
  making: Promise<unknown>,
  { step, vm, state, code, message }: Expected,
): Promise<void> {
  const expected = code ?? (`ERR_UFFD_PAUSE_AND_SNAPSHOT_${step.toUpperCase()}` as UffdErrorCode)
  const error = await t.throwsAsync<PauseAndSnapshotError>(making, { code: expected })
  t.like(error, { name: 'PauseAndSnapshotError', step, vm })
  if (message !== undefined) t.regex(error.message, message)
  if (state !== undefined) t.is(firecracker.api.vm.state, state as never)
}

test('a pause that is refused', async (t) => {
  const { firecracker, vm, files } = await restored(t, {
    onState: async (state) => {
      if (state === 'Paused') throw new Error('not now')
    },
  })
  const expected = { step: 'pause', vm: 'unchanged', state: 'Running', message: /not now/ } as const
  await fails(t, firecracker, pauseAndSnapshot(vm, { ...files, resume: true }), expected)
})

for (const resume of [true, false]) {
  const [vmIs, state] = resume ? (['running', 'Running'] as const) : (['paused', 'Paused'] as const)

  test(`a snapshot that is refused leaves it ${vmIs}`, async (t) => {
    const { firecracker, vm, files } = await restored(t, {
      onCreateSnapshot: async () => {
        throw new Error('no space left on device')
      },
    })
    const expected = { step: 'create', vm: vmIs, state, message: /no space left/ } as const
    await fails(t, firecracker, pauseAndSnapshot(vm, { ...files, resume }), expected)
    t.is(await firecracker.guest.wrong(0, firecracker.pages, 'source'), 0, 'it is served on')
  })
}

test('a resume that is refused', async (t) => {
  let resumes = 0
  const { firecracker, vm, files } = await restored(t, {
    onState: async (state) => {
      if (state === 'Running' && ++resumes > 1) throw new Error('stay')
    },
  })
  const expected = { step: 'resume', vm: 'paused', state: 'Paused', message: /stay/ } as const
  await fails(t, firecracker, pauseAndSnapshot(vm, { ...files, resume: true }), expected)
})

const hangs: [Route, Expected, PauseAndSnapshotOptions['timeouts']][] = [
  ['PUT /snapshot/create', { step: 'create', vm: 'paused' }, { createMs: 100 }],
  ['GET /', { step: 'settle', vm: 'paused' }, { requestMs: 2000 }],
  [
    'GET /',
    { step: 'settle', vm: 'paused', message: /did not settle within 100 ms/ },
    { settleMs: 100 },
  ],
]

for (const [route, expected, timeouts] of hangs) {
  test(`${route} without an answer, and ${JSON.stringify(timeouts)}`, async (t) => {
    const misbehave: Misbehaving = {}
    const { firecracker, vm, files } = await restored(t, { misbehave })
    misbehave[route] = 'hang'
    await fails(t, firecracker, pauseAndSnapshot(vm, { ...files, timeouts: timeouts! }), expected)
  })
}

test('a pause without an answer: nobody knows', async (t) => {
  const { firecracker, vm, files } = await restored(t, {
    onState: async (state) => (state === 'Paused' ? await never() : undefined),
  })
  const making = pauseAndSnapshot(vm, { ...files, timeouts: { requestMs: 2000 } })
  await fails(t, firecracker, making, { step: 'pause', vm: 'unknown' })
})

test('somebody else resumes it meanwhile', async (t) => {
  const misbehave: Misbehaving = {}
  const { firecracker, vm, files } = await restored(t, { misbehave })
  misbehave['GET /'] = {
    status: 200,
    text: '{"app_name":"Firecracker","id":"x","state":"Running","vmm_version":"1.16.1"}',
  }
  const message = /is "Running" and not paused/
  await fails(t, firecracker, pauseAndSnapshot(vm, files), {
    step: 'settle',
    vm: 'paused',
    message,
  })
})

test('an abort while the snapshot is written', async (t) => {
  const { firecracker, vm, files } = await restored(t, { onCreateSnapshot: never })
  const aborting = new AbortController()
  void firecracker.api.arrived('PUT /snapshot/create').then(() => aborting.abort())
  const making = pauseAndSnapshot(vm, { ...files, signal: aborting.signal })
  const code = 'ERR_UFFD_PAUSE_AND_SNAPSHOT_ABORTED'
  await fails(t, firecracker, making, { step: 'create', vm: 'paused', code })
})

for (const isPaused of [true, false]) {
  const [vmIs, state] = isPaused
    ? (['paused', 'Paused'] as const)
    : (['running', 'Running'] as const)

  test(`an abort while it is being paused: it is looked at, and ${vmIs}`, async (t) => {
    const aborting = new AbortController()
    const { firecracker, vm, files } = await restored(t, {
      onState: async (entered) => {
        if (entered !== 'Paused') return
        aborting.abort()
        if (!isPaused) throw new Error('not now')
      },
    })
    const making = pauseAndSnapshot(vm, { ...files, signal: aborting.signal })
    const code = 'ERR_UFFD_PAUSE_AND_SNAPSHOT_ABORTED'
    await fails(t, firecracker, making, { step: 'pause', vm: vmIs, state, code })
  })
}

test('a guest killed while the snapshot is written', async (t) => {
  const { firecracker, vm, files } = await restored(t, {
    onCreateSnapshot: async () => {
      vm.guest.kill()
      await never()
    },
  })
  await fails(t, firecracker, pauseAndSnapshot(vm, files), { step: 'create', vm: 'gone' })
})

test('a guest that has ended already', async (t) => {
  const { firecracker, vm, files, routes } = await restored(t)
  vm.guest.kill()
  await vm.ended
  await fails(t, firecracker, pauseAndSnapshot(vm, files), { step: 'drain', vm: 'gone' })
  t.deepEqual(routes(), [])
})

test('a guest that is served no longer is not resumed', async (t) => {
  const { firecracker, vm, files } = await restored(t, {
    onCreateSnapshot: async () => {
      void vm.guest.stop()
      await never()
    },
  })
  const making = pauseAndSnapshot(vm, { ...files, resume: true })
  await fails(t, firecracker, making, { step: 'create', vm: 'paused' })
})
