import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'ava'
import { FirecrackerClient, FirecrackerError, FirecrackerHttpError } from '../../src/index.js'
import type { Misbehaviour } from '../support/firecracker-api/misbehaviour.js'
import { withApi } from '../support/with-api.js'

const directory = await mkdtemp(join(tmpdir(), 'uffd-client-'))
test.after.always(() => rm(directory, { recursive: true }))

test('a socket that is not there', async (t) => {
  const socketPath = join(directory, 'absent.sock')
  const error = await t.throwsAsync(new FirecrackerClient({ socketPath }).instanceInfo(), {
    instanceOf: FirecrackerError,
    code: 'ERR_UFFD_FIRECRACKER_SOCKET_MISSING',
  })
  t.is(error.request, 'GET /')
  t.is(
    error.message,
    `GET /: there is no socket at ${socketPath}; start Firecracker with --api-sock and wait for it`,
  )
})

test('a Firecracker that has ended', async (t) => {
  const { api, client } = await withApi(t)
  await api.exit()
  const error = await t.throwsAsync(client.pause(), { code: 'ERR_UFFD_FIRECRACKER_REFUSED' })
  t.regex(error.message, /^PATCH \/vm: nothing listens on .*; Firecracker has exited/)
})

test('a file where a socket should be', async (t) => {
  const socketPath = join(directory, 'file')
  await writeFile(socketPath, '')
  await t.throwsAsync(new FirecrackerClient({ socketPath }).instanceInfo(), {
    code: 'ERR_UFFD_FIRECRACKER_REFUSED',
  })
})

test('what Firecracker refuses is told in its own words', async (t) => {
  const { client } = await withApi(t)
  const error = await t.throwsAsync(client.balloon(), { instanceOf: FirecrackerHttpError })
  t.like(error, {
    code: 'ERR_UFFD_FIRECRACKER_HTTP',
    name: 'FirecrackerHttpError',
    status: 400,
    faultMessage: 'No balloon device is configured.',
    request: 'GET /balloon',
    message: 'GET /balloon: Firecracker answered 400: No balloon device is configured.',
  })
})

const refusals: [name: string, status: number, text: string, fault: string | undefined][] = [
  ['in plain text', 400, 'Bad Request', 'Bad Request'],
  ['of the HTTP server', 503, '{ "error": "Too many connections" }', 'Too many connections'],
  ['in JSON of another shape', 500, '{"reason":"no"}', '{"reason":"no"}'],
  ['without a word', 500, '', undefined],
  ['with a redirection', 302, '', undefined],
]

for (const [name, status, text, faultMessage] of refusals) {
  test(`a refusal ${name}`, async (t) => {
    const { client } = await withApi(t, { misbehave: { 'PATCH /vm': { status, text } } })
    const error = await t.throwsAsync(client.pause(), { instanceOf: FirecrackerHttpError })
    t.is(error.status, status)
    t.is(error.faultMessage, faultMessage)
  })
}

const broken: [how: Misbehaviour, code: string, message: RegExp][] = [
  ['hang up', 'ERR_UFFD_FIRECRACKER_CONNECTION_LOST', /hung up without an answer/],
  ['cut in the headers', 'ERR_UFFD_FIRECRACKER_BAD_ANSWER', /cut short/],
  ['cut in the body', 'ERR_UFFD_FIRECRACKER_BAD_ANSWER', /cut short/],
  ['garbage', 'ERR_UFFD_FIRECRACKER_BAD_ANSWER', /not HTTP/],
  ['not JSON', 'ERR_UFFD_FIRECRACKER_BAD_ANSWER', /not JSON: "\{\\"firecracker_"/],
  ['endless', 'ERR_UFFD_FIRECRACKER_BAD_ANSWER', /longer than 1048576 bytes/],
  [
    { status: 200, text: '{"firecracker_version":114}' },
    'ERR_UFFD_FIRECRACKER_BAD_ANSWER',
    /Expected the answer "firecracker_version" to be a string/,
  ],
  [
    { status: 200, text: '[]' },
    'ERR_UFFD_FIRECRACKER_BAD_ANSWER',
    /to be an object, got an empty array/,
  ],
  [
    { status: 200, text: '{"firecracker_version":"unknown"}' },
    'ERR_UFFD_FIRECRACKER_BAD_VERSION',
    /got the string "unknown"/,
  ],
]

for (const [how, code, message] of broken) {
  test(`an answer broken: ${JSON.stringify(how)}`, async (t) => {
    const { client } = await withApi(t, { misbehave: { 'GET /version': how } })
    await t.throwsAsync(client.version(), { code, message })
  })
}

test('a request that failed is not sent again', async (t) => {
  const { api, client } = await withApi(t, { misbehave: { 'PUT /snapshot/load': 'hang up' } })
  await t.throwsAsync(client.loadSnapshot({ snapshotPath: '/s', backendPath: '/b' }))
  t.is(api.bodies('PUT /snapshot/load').length, 1)
})

test('a slow answer is an answer', async (t) => {
  const { client } = await withApi(t, {
    misbehave: { 'GET /version': { slowly: { firecracker_version: '1.15.0' } } },
  })
  t.is(String(await client.version()), '1.15.0')
})

test('a version that could not be had is asked for again', async (t) => {
  const misbehave: Partial<Record<'GET /version', Misbehaviour>> = { 'GET /version': 'hang up' }
  const { client } = await withApi(t, { misbehave })
  await t.throwsAsync(client.version())
  delete misbehave['GET /version']
  t.is(String(await client.version()), '1.16.1')
})

test('an answer in two pieces, status and body apart', async (t) => {
  const socketPath = join(directory, 'pieces.sock')
  const server = createServer((socket) => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 200 \r\nServer: Firecracker API\r\nContent-Length: 32\r\n\r\n', () =>
        socket.write('{"firecracker_version":"1.12.1"}'),
      )
    })
  }).listen(socketPath)
  await once(server, 'listening')
  t.teardown(() => server.close())
  t.is(String(await new FirecrackerClient({ socketPath }).version()), '1.12.1')
})
