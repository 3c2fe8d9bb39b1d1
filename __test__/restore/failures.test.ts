// Everything that can go wrong, at every step: which step is blamed, what is left of the microVM,
// and that nothing else is left.
import { existsSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import {
  type RestoreError,
  type RestoreOptions,
  type RestoreStep,
  type UffdErrorCode,
  type VmAfterRestore,
} from '../../src/index.js'
import { type Misbehaviour } from '../support/firecracker-api/misbehaviour.js'
import { type Route } from '../support/firecracker-api/published.js'
import { Firecracker, type Played } from '../support/firecracker.js'
import { descriptors, resources } from '../support/resources.js'
import { snapshotFile } from '../support/stage.js'

interface Expected {
  readonly step: RestoreStep
  readonly vm: VmAfterRestore
  readonly code?: UffdErrorCode
  readonly cause?: UffdErrorCode
  readonly message?: RegExp
}

let held: ReturnType<typeof resources> | undefined

const userfaultfd = 'anon_inode:[userfaultfd]'

test.serial.beforeEach(() => {
  // One tells this process's own memory from that of guests, from the first of them on.
  const own = descriptors().includes(userfaultfd) ? [] : [userfaultfd]
  // The deadline of the test itself is held as well.
  held = resources('Timeout', ...own)
})

const never = (): Promise<void> => new Promise(() => {})

/** Restores, which has to fail, and looks for what was left behind. */
async function fails(
  t: ExecutionContext,
  firecracker: Firecracker,
  more: RestoreOptions,
  expected: Expected,
): Promise<RestoreError> {
  const { step, vm, cause, message, code = codeOf(step) } = expected
  const error = (await t.throwsAsync(firecracker.restore(more), { code })) as RestoreError
  t.like(error, { name: 'RestoreError', step, vm })
  if (cause !== undefined) t.like(error.cause, { code: cause })
  if (message !== undefined) t.regex(error.message, message)
  t.false(existsSync(firecracker.socket), 'the socket was left behind')
  await firecracker.close()
  t.deepEqual(await held!.left(), [])
  return error
}

const codeOf = (step: RestoreStep) => `ERR_UFFD_RESTORE_${step.toUpperCase()}` as UffdErrorCode

const untouched = { step: 'version', vm: 'untouched' } as const
const loading = { step: 'load', vm: 'unusable' } as const
const verifying = { step: 'verify', vm: 'unusable' } as const
const resuming = { step: 'resume', vm: 'unusable' } as const

const beforeTheLoad = ['GET /version', 'GET /']

const refusal: Misbehaviour = { status: 400, text: '{"fault_message":"not today"}' }
const http = 'ERR_UFFD_FIRECRACKER_HTTP'
const timeout = 'ERR_UFFD_FIRECRACKER_TIMEOUT'
const badAnswer = 'ERR_UFFD_FIRECRACKER_BAD_ANSWER'
const lost = 'ERR_UFFD_FIRECRACKER_CONNECTION_LOST'

const ways: [how: Misbehaviour, cause: UffdErrorCode][] = [
  [refusal, http],
  ['hang', timeout],
  ['hang up', lost],
  ['cut in the headers', badAnswer],
  ['cut in the body', badAnswer],
  ['garbage', badAnswer],
]

const requests: [route: Route, expected: Expected][] = [
  ['GET /version', untouched],
  ['GET /', untouched],
  ['PUT /snapshot/load', loading],
  ['GET /machine-config', verifying],
  ['GET /balloon', verifying],
  ['PATCH /vm', resuming],
]

for (const [route, expected] of requests) {
  for (const [how, cause] of ways) {
    // A balloon that is refused is one that does not exist.
    if (route === 'GET /balloon' && how === refusal) continue
    const name = typeof how === 'string' ? how : 'a refusal'
    test.serial(`${route}: ${name}`, async (t) => {
      const firecracker = await Firecracker.start(t, { misbehave: { [route]: how } })
      const isLoad = route === 'PUT /snapshot/load'
      const timeouts = how !== 'hang' ? {} : isLoad ? { loadMs: 100 } : { requestMs: 2000 }
      const message = how === refusal ? /not today/ : undefined
      await fails(t, firecracker, { timeouts }, { ...expected, cause, ...(message && { message }) })
    })
  }
}

test.serial('a Firecracker that has exited', async (t) => {
  const firecracker = await Firecracker.start(t)
  await firecracker.api.exit()
  await fails(t, firecracker, {}, { ...untouched, cause: 'ERR_UFFD_FIRECRACKER_REFUSED' })
})

for (const state of ['Running', 'Paused'] as const) {
  test.serial(`a Firecracker whose microVM is ${state}: nothing is loaded`, async (t) => {
    const firecracker = await Firecracker.start(t)
    firecracker.api.vm.state = state
    const message = new RegExp(`has the microVM "test-instance" already, whose state is "${state}"`)
    const cause = 'ERR_UFFD_FIRECRACKER_NOT_FRESH'
    await fails(t, firecracker, {}, { ...untouched, cause, message })
    t.deepEqual(firecracker.routes, beforeTheLoad)
    t.is(firecracker.api.vm.state, state)
  })
}

const unservable = [
  ['a socket', { socket: '/nowhere/uffd.sock' }, 'ERR_UFFD_SOCKET_NO_DIRECTORY'],
  ['a snapshot', { snapshot: '/nowhere/mem' }, 'ERR_UFFD_SNAPSHOT_MISSING'],
] as const

for (const [what, options, cause] of unservable) {
  test.serial(`${what} that cannot be had: nothing is loaded`, async (t) => {
    const firecracker = await Firecracker.start(t)
    await fails(t, firecracker, options, { step: 'listen', vm: 'untouched', cause })
    t.deepEqual(firecracker.routes, beforeTheLoad)
  })
}

test.serial('a load that fails in words of Firecracker, which exits', async (t) => {
  const firecracker = await Firecracker.start(t, {
    withoutHandoff: true,
    onLoadSnapshot: async () => {
      throw new Error('the state file is of another planet')
    },
  })
  const message = /Firecracker answered 400: the state file is of another planet/
  await fails(t, firecracker, {}, { ...loading, cause: http, message })
})

test.serial('a load that is answered, and no handoff', async (t) => {
  const firecracker = await Firecracker.start(t, { withoutHandoff: true })
  const expected = { step: 'handoff', vm: 'unusable', cause: 'ERR_UFFD_ACCEPT_TIMEOUT' } as const
  await fails(t, firecracker, { timeouts: { handoffMs: 100 } }, expected)
})

test.serial('a load that hangs, and no handoff', async (t) => {
  const firecracker = await Firecracker.start(t, { misbehave: { 'PUT /snapshot/load': 'hang' } })
  const expected = { step: 'handoff', vm: 'unusable', cause: 'ERR_UFFD_ACCEPT_TIMEOUT' } as const
  await fails(t, firecracker, { timeouts: { handoffMs: 100 } }, expected)
})

test.serial('a handoff, and a load that hangs', async (t) => {
  const firecracker = await Firecracker.start(t, { afterHandoff: never })
  await fails(t, firecracker, { timeouts: { loadMs: 3000 } }, { ...loading, cause: timeout })
})

for (const killOnFailure of [true, false]) {
  const vm = killOnFailure ? 'gone' : 'unusable'
  test.serial(`a handoff, and a load that fails then: it is ${vm}`, async (t) => {
    const firecracker = await Firecracker.start(t, {
      afterHandoff: async ({ guest }) => {
        // Once a page was served, the handoff is known to have been taken.
        await guest.ask({ op: 'touch', page: 0 })
        throw new Error('no such TAP device')
      },
    })
    const message = /Firecracker answered 400: no such TAP device/
    await fails(t, firecracker, { killOnFailure }, { step: 'load', vm, cause: http, message })
  })
}

const handoffs: [name: string, args: string[], cause: UffdErrorCode][] = [
  ['without a descriptor', ['--no-fd'], 'ERR_UFFD_HANDOFF_TIMEOUT'],
  ['of no regions', ['--raw-json', '{}'], 'ERR_UFFD_HANDOFF_JSON'],
  ['that never comes on an open connection', ['--silent'], 'ERR_UFFD_HANDOFF_TIMEOUT'],
]

for (const [name, guestArgs, cause] of handoffs) {
  test.serial(`a refused handoff, ${name}`, async (t) => {
    const firecracker = await Firecracker.start(t, { guestArgs, afterHandoff: never })
    const handoffTimeoutMs = cause === 'ERR_UFFD_HANDOFF_TIMEOUT' ? 100 : 10_000
    await fails(t, firecracker, { handoffTimeoutMs }, { step: 'handoff', vm: 'unusable', cause })
  })
}

test.serial('a guest with more memory than the snapshot is refused', async (t) => {
  const firecracker = await Firecracker.start(t, { afterHandoff: never })
  const snapshot = snapshotFile(t, firecracker.pages - 1)
  const expected = { step: 'handoff', vm: 'unusable', cause: 'ERR_UFFD_HANDOFF_SNAPSHOT' } as const
  await fails(t, firecracker, { snapshot }, expected)
})

/** Steps at which something happens from outside: what is played, and where it is then. */
const moments: [name: RestoreStep, played: Played, route: Route, expected: Expected][] = [
  ['version', { misbehave: { 'GET /version': 'hang' } }, 'GET /version', untouched],
  ['verify', { misbehave: { 'GET /balloon': 'hang' } }, 'GET /balloon', verifying],
  ['resume', { misbehave: { 'PATCH /vm': 'hang' } }, 'PATCH /vm', resuming],
]

for (const [name, played, route, expected] of moments) {
  test.serial(`an abort at the step ${name}`, async (t) => {
    const firecracker = await Firecracker.start(t, played)
    const aborting = new AbortController()
    const reason = new Error('somebody else is faster')
    void firecracker.api.arrived(route).then(() => aborting.abort(reason))
    const code = 'ERR_UFFD_RESTORE_ABORTED'
    const { cause } = await fails(
      t,
      firecracker,
      { signal: aborting.signal },
      { ...expected, code, message: /was aborted by its signal while/ },
    )
    t.is(cause, reason)
  })
}

test.serial('an abort while Firecracker is loading, before the handoff', async (t) => {
  const firecracker = await Firecracker.start(t, { misbehave: { 'PUT /snapshot/load': 'hang' } })
  const aborting = new AbortController()
  void firecracker.api.arrived('PUT /snapshot/load').then(() => aborting.abort())
  const code = 'ERR_UFFD_RESTORE_ABORTED'
  await fails(t, firecracker, { signal: aborting.signal }, { ...loading, code })
})

test.serial('an abort while Firecracker is loading, after the handoff', async (t) => {
  const aborting = new AbortController()
  const afterHandoff = async () => {
    aborting.abort()
    return await never()
  }
  const firecracker = await Firecracker.start(t, { afterHandoff })
  const code = 'ERR_UFFD_RESTORE_ABORTED'
  await fails(t, firecracker, { signal: aborting.signal }, { ...loading, code })
})

test.serial('an abort before it begins', async (t) => {
  const firecracker = await Firecracker.start(t)
  const code = 'ERR_UFFD_RESTORE_ABORTED'
  const signal = AbortSignal.abort()
  await fails(t, firecracker, { signal }, { step: 'template', vm: 'untouched', code })
  t.deepEqual(firecracker.routes, [])
})

test.serial('a guest killed while Firecracker is loading', async (t) => {
  const afterHandoff = async ({ guest }: Firecracker) => {
    // Once a page was served, the handoff is known to have been taken.
    await guest.ask({ op: 'touch', page: 0 })
    await guest.kill()
    return await never()
  }
  const firecracker = await Firecracker.start(t, { afterHandoff })
  await fails(t, firecracker, {}, { step: 'load', vm: 'gone' })
})

for (const [name, played, route] of moments.slice(1)) {
  test.serial(`a guest killed at the step ${name}`, async (t) => {
    const firecracker = await Firecracker.start(t, played)
    void firecracker.api.arrived(route).then(() => firecracker.guest.kill())
    await fails(t, firecracker, {}, { step: name, vm: 'gone' })
  })
}

for (const killOnFailure of [true, false]) {
  const what = killOnFailure ? 'killed' : 'left alone'
  test.serial(`a guest whose restore failed is ${what}, by option`, async (t) => {
    let whereabouts: unknown
    const firecracker = await Firecracker.start(t, { misbehave: { 'PATCH /vm': refusal } })
    const restored = firecracker.restore({ killOnFailure })
    const vm = killOnFailure ? 'gone' : 'unusable'
    await t.throwsAsync(restored, { code: 'ERR_UFFD_RESTORE_RESUME' })
    await restored.catch((error: RestoreError) => t.is(error.vm, vm))
    if (killOnFailure) await firecracker.guest.exited
    else whereabouts = await firecracker.guest.ask({ op: 'whereabouts' })
    t.is(whereabouts !== undefined, !killOnFailure)
  })
}
