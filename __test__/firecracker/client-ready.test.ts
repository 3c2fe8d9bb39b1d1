import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'ava'
import { FirecrackerClient, FirecrackerError } from '../../src/index.js'
import { untilReady } from '../../src/firecracker/ready.js'
import { FirecrackerApi } from '../support/firecracker-api.js'
import { deadlineMs } from '../support/guest.js'
import { temporaryDirectory } from '../support/stage.js'
import { withApi } from '../support/with-api.js'

test('a Firecracker whose socket comes later is waited for', async (t) => {
  const api = await FirecrackerApi.start({ version: '1.15.0' })
  t.teardown(() => api.close())
  const socketPath = join(temporaryDirectory(t), 'api.sock')
  const client = new FirecrackerClient({ socketPath })
  await t.throwsAsync(client.version(), { code: 'ERR_UFFD_FIRECRACKER_SOCKET_MISSING' })
  const ready = client.ready({ timeoutMs: deadlineMs })
  await rename(api.socketPath, socketPath)
  t.is(String(await ready), '1.15.0')
})

test('one that answers already is not', async (t) => {
  const { api, client } = await withApi(t)
  t.is(String(await client.ready()), '1.16.1')
  t.is(api.requests.length, 1)
})

const ends: [how: string, prepare: (api: FirecrackerApi) => Promise<void>, code: string][] = [
  ['is missing', (api) => api.close(), 'ERR_UFFD_FIRECRACKER_SOCKET_MISSING'],
  ['refuses', (api) => api.exit(), 'ERR_UFFD_FIRECRACKER_REFUSED'],
]

for (const [how, prepare, code] of ends) {
  test(`a socket that ${how} until the deadline is the error`, async (t) => {
    const { api, client } = await withApi(t)
    await client.version()
    await prepare(api)
    // Long enough for one look at the socket on a machine with much else to do.
    await t.throwsAsync(client.ready({ timeoutMs: 1000 }), { code })
  })
}

test('what the socket said is the error, where the last look at it is too short', async (t) => {
  const refused = new FirecrackerError('ERR_UFFD_FIRECRACKER_REFUSED', 'GET /version', 'no')
  const late = new FirecrackerError('ERR_UFFD_FIRECRACKER_TIMEOUT', 'GET /version', 'late')
  const answers = [refused, late]
  const ask = () => Promise.reject(answers.shift())
  t.is(await t.throwsAsync(untilReady(ask, 99, undefined)), refused)
  // One that had all the time there was does say something.
  t.is(await t.throwsAsync(untilReady(() => Promise.reject(late), deadlineMs, undefined)), late)
})

test('what is no question of time fails at once', async (t) => {
  const { api, client } = await withApi(t, { misbehave: { 'GET /version': 'garbage' } })
  await t.throwsAsync(client.ready({ timeoutMs: deadlineMs }), {
    code: 'ERR_UFFD_FIRECRACKER_BAD_ANSWER',
  })
  t.is(api.requests.length, 1)
})

test('a signal ends the wait', async (t) => {
  const { api, client } = await withApi(t)
  await api.exit()
  const aborting = new AbortController()
  const ready = client.ready({ timeoutMs: deadlineMs, signal: aborting.signal })
  aborting.abort('enough')
  const error = await t.throwsAsync(ready, { code: 'ERR_UFFD_FIRECRACKER_ABORTED' })
  t.is(error.cause, 'enough')
})

test('closing the client ends it too', async (t) => {
  const { api, client } = await withApi(t)
  await api.exit()
  const ready = client.ready({ timeoutMs: deadlineMs })
  client.close()
  await t.throwsAsync(ready, { code: 'ERR_UFFD_FIRECRACKER_CLOSED' })
})

test('its options are checked', async (t) => {
  const { client } = await withApi(t)
  await t.throwsAsync(client.ready({ timeoutMs: 0 }), {
    code: 'ERR_UFFD_INVALID_OPTION',
    message: /"timeoutMs"/,
  })
})
