import { getEventListeners } from 'node:events'
import test from 'ava'
import { FirecrackerClient } from '../../src/index.js'
import { withApi } from '../support/with-api.js'

const hanging = { misbehave: { 'PATCH /vm': 'hang' } } as const

test('a hang ends with the deadline of the request', async (t) => {
  const { client } = await withApi(t, hanging)
  const error = await t.throwsAsync(client.pause({ timeoutMs: 20 }), {
    code: 'ERR_UFFD_FIRECRACKER_TIMEOUT',
  })
  t.regex(error.message, /^PATCH \/vm: no answer within 20 ms\. Firecracker may still carry it out/)
})

test('a hang ends with the deadline of the client', async (t) => {
  const { client } = await withApi(t, hanging, { timeoutMs: 20 })
  await t.throwsAsync(client.pause(), { code: 'ERR_UFFD_FIRECRACKER_TIMEOUT' })
})

test('snapshots have a deadline of their own', async (t) => {
  const { client } = await withApi(
    t,
    { onLoadSnapshot: () => new Promise(() => {}) },
    { snapshotTimeoutMs: 20 },
  )
  await t.throwsAsync(client.loadSnapshot({ snapshotPath: '/s', backendPath: '/b' }), {
    code: 'ERR_UFFD_FIRECRACKER_TIMEOUT',
    message: /no answer within 20 ms/,
  })
})

test('while the load of a snapshot hangs, other requests wait, and end with their deadline', async (t) => {
  const { api, client } = await withApi(t, { onLoadSnapshot: () => new Promise(() => {}) })
  const loading = client.loadSnapshot({ snapshotPath: '/s', backendPath: '/b' })
  await api.arrived('PUT /snapshot/load')
  await t.throwsAsync(client.instanceInfo({ timeoutMs: 20 }), {
    code: 'ERR_UFFD_FIRECRACKER_TIMEOUT',
  })
  client.close()
  await t.throwsAsync(loading, { code: 'ERR_UFFD_FIRECRACKER_CLOSED' })
})

test('a deadline covers an answer that stops in the middle', async (t) => {
  const { client } = await withApi(t, { misbehave: { 'GET /version': 'stall in the body' } })
  await t.throwsAsync(client.version({ timeoutMs: 20 }), { code: 'ERR_UFFD_FIRECRACKER_TIMEOUT' })
})

test('a signal ends a request, and its reason is kept', async (t) => {
  const { api, client } = await withApi(t, hanging)
  const abort = new AbortController()
  const pausing = client.pause({ signal: abort.signal })
  await api.arrived('PATCH /vm')
  abort.abort('enough')
  const error = await t.throwsAsync(pausing, { code: 'ERR_UFFD_FIRECRACKER_ABORTED' })
  t.is(error.cause, 'enough')
})

test('a signal that fired before sends nothing', async (t) => {
  const { api, client } = await withApi(t)
  await t.throwsAsync(client.pause({ signal: AbortSignal.abort() }), {
    code: 'ERR_UFFD_FIRECRACKER_ABORTED',
  })
  t.deepEqual(api.requests, [])
})

test('nothing stays behind on a signal that is used for many requests', async (t) => {
  const { client } = await withApi(t)
  const { signal } = new AbortController()
  for (let i = 0; i < 3; i++) await client.instanceInfo({ signal })
  t.deepEqual(getEventListeners(signal, 'abort'), [])
})

test('a client works again after a request of it was aborted', async (t) => {
  const { client } = await withApi(t, hanging)
  await t.throwsAsync(client.pause({ timeoutMs: 20 }))
  t.is((await client.instanceInfo()).state, 'Not started')
})

test('closing ends what waits and refuses what comes', async (t) => {
  const { api, client } = await withApi(t, hanging)
  const pausing = client.pause()
  await api.arrived('PATCH /vm')
  client.close()
  await t.throwsAsync(pausing, { code: 'ERR_UFFD_FIRECRACKER_CLOSED' })
  await t.throwsAsync(client.instanceInfo(), { code: 'ERR_UFFD_FIRECRACKER_CLOSED' })
})

test('disposing closes', async (t) => {
  const { client } = await withApi(t)
  await client[Symbol.asyncDispose]()
  await t.throwsAsync(client.instanceInfo(), { code: 'ERR_UFFD_FIRECRACKER_CLOSED' })
})

const badOptions: [options: unknown, field: string][] = [
  [undefined, ''],
  [{}, 'socketPath'],
  [{ socketPath: '' }, 'socketPath'],
  [{ socketPath: '/a\0b' }, 'socketPath'],
  [{ socketPath: `/${'s'.repeat(107)}` }, 'socketPath'],
  [{ socketPath: '/s', timeoutMs: 0 }, 'timeoutMs'],
  [{ socketPath: '/s', snapshotTimeoutMs: 2 ** 31 }, 'snapshotTimeoutMs'],
  [{ socketPath: '/s', timeout: 5 }, 'timeout'],
]

for (const [options, field] of badOptions) {
  test(`refuses the options ${JSON.stringify(options)}`, (t) => {
    const create = () => new FirecrackerClient(options as { socketPath: string })
    const error = t.throws<Error & { field: string }>(create, { code: 'ERR_UFFD_INVALID_OPTION' })
    t.is(error.field, field)
  })
}
