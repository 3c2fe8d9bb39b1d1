// A server that is looked into and stopped at a Unix socket, and what strangers can do there.
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, statSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import test, { type ExecutionContext } from 'ava'
import { answersAt, ask, crowd, leaveSocket } from '../support/http.js'
import { Place } from '../support/place.js'
import { Stage, temporaryDirectory } from '../support/stage.js'

const pages = 64

/** A stage that is controlled. */
async function controlled(t: ExecutionContext) {
  const stage = await Stage.open(t, pages)
  const path = join(temporaryDirectory(t), 'control')
  const endpoint = await stage.server.control(path)
  return { stage, endpoint, path, url: `unix:${path}` }
}

/** A connection that says what it is told, gone after the test. */
async function connected(t: ExecutionContext, path: string): Promise<Socket> {
  const socket = connect(path)
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** Everything that is sent until the other side hangs up, however it does. */
async function rest(socket: Socket): Promise<string> {
  let text = ''
  socket.setEncoding('utf8').on('data', (part: string) => (text += part))
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
  return text
}

interface Told {
  readonly guests: readonly Record<string, unknown>[]
}

test('it is told how a server and its guests do', async (t) => {
  const { stage, path, url } = await controlled(t)
  t.is(statSync(path).mode & 0o777, 0o600)
  const { guest, process: vm } = await stage.guest()
  await vm.wrong(0, pages, 'source')
  const { faults } = await guest.stats()
  for (;;) {
    const { status, body } = await ask(url, '/status')
    t.is(status, 200)
    const told = JSON.parse(body) as Told
    t.like(told, { protocol: 1, pid: process.pid, socket: stage.server.socket, accepts: true })
    const [only] = told.guests
    t.like(only, { id: guest.id, pid: vm.pid, memoryBytes: pages * 4096 })
    const counters = only!['counters'] as Record<string, number>
    // Figures are shown at the end of a turn of the fault loop.
    if (faults === counters['readFaults']! + counters['writeFaults']!) break
  }
})

test('a dump has regions, statistics, whose memory it is, and guests that have ended', async (t) => {
  const { stage, url } = await controlled(t)
  const gone = await stage.guest()
  await gone.process.kill()
  await gone.guest.ended
  const { guest, process: vm } = await stage.guest()
  await vm.wrong(0, 8, 'source')
  const all = JSON.parse((await ask(url, '/dump')).body) as Told & {
    ended: unknown[]
    options: object
  }
  t.is(all.guests.length, 1)
  const [region] = guest.regions
  t.like(all.guests[0], {
    id: guest.id,
    peer: { pid: vm.pid, uid: process.geteuid!(), root: '/' },
    owner: guest.owner,
    regions: [{ address: `0x${region!.address.toString(16)}`, size: pages * 4096, offset: 0 }],
    notices: [],
  })
  t.true((all.guests[0]!['stats'] as { faults: number }).faults > 0)
  t.like(all.ended, [{ id: gone.guest.id, reason: 'guest-exited' }])
  t.like(all.options, { socket: stage.server.socket })

  for (const name of [guest.id, guest.id.slice(0, 6), `${vm.pid}`]) {
    const { status } = await ask(url, `/dump?guest=${name}`)
    t.is(status, 200, name)
  }
  t.is((await ask(url, `/dump?guest=${gone.guest.id}`)).status, 404)
})

test('it stops the server, and says what became of each guest', async (t) => {
  const { stage, path, url } = await controlled(t)
  const { guest } = await stage.guest()
  // Who is asked twice stops once, and both are told.
  const answers = await Promise.all([
    ask(url, '/stop', { method: 'POST' }),
    ask(url, '/stop', { method: 'POST' }),
  ])
  t.is((await guest.ended).reason, 'stopped')
  t.false(existsSync(path))
  let most = 0
  for (const { status, body } of answers) {
    t.is(status, 200)
    const [first, last] = body.split('\n')
    const { guests, ...beginning } = JSON.parse(first!) as { guests: number }
    t.like(beginning, { protocol: 1, pid: process.pid })
    const end = JSON.parse(last!) as Told
    t.like(end, { ends: { stopped: 1, failed: 0 } })
    t.is(end.guests.length, guests)
    for (const told of end.guests) t.like(told, { id: guest.id, reason: 'stopped' })
    most = Math.max(most, guests)
  }
  // When the second is heard the guest may have been stopped.
  t.is(most, 1)
})

test('guests are left only where they can be', async (t) => {
  const { stage, url } = await controlled(t)
  const { process: vm } = await stage.guest()
  const { status, body } = await ask(url, '/stop?hand-over', { method: 'POST' })
  t.is(status, 409)
  t.regex(body, /no state directory/)
  t.is(await vm.wrong(0, pages, 'source'), 0)
})

test('told to, it leaves its guests to the next server, which may have the same socket', async (t) => {
  const place = new Place(t)
  const first = await place.here()
  const path = join(temporaryDirectory(t), 'control')
  await first.control(path)
  const guest = await place.guest(first.socket)
  await guest.wrong(0, 8, 'source')
  const waiting = place.here({ stateDirWait: true })
  const { body } = await ask(`unix:${path}`, '/stop?hand-over', { method: 'POST' })
  t.regex(body, /"handedOver":1/)
  const next = await waiting
  t.is(next.recovered.length, 1)
  await next.control(path)
  t.is((await ask(`unix:${path}`, '/status')).status, 200)
  t.is(await guest.wrong(8, 8, 'source'), 0)
})

test('looking changes nothing, and what changes something is not looked at', async (t) => {
  const { stage, url } = await controlled(t)
  for (const [method, path, status] of [
    ['GET', '/stop', 405],
    ['HEAD', '/stop', 405],
    ['PUT', '/stop', 405],
    ['DELETE', '/stop', 405],
    ['POST', '/status', 405],
    ['POST', '/dump', 405],
    ['POST', '/nothing', 405],
    ['GET', '/metrics', 404],
    ['GET', '/', 404],
    ['GET', '/stop/', 404],
    ['GET', '//stop', 404],
  ] as const) {
    t.is((await ask(url, path, { method })).status, status, `${method} ${path}`)
  }
  const { process: vm } = await stage.guest()
  t.is(await vm.wrong(0, pages, 'source'), 0)
})

test('huge requests, noise, and those who say half of it are cut off', async (t) => {
  const { stage, path, url } = await controlled(t)
  const { process: vm } = await stage.guest()
  const said = [
    `GET /status HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(1 << 20)}\r\n\r\n`,
    `POST /stop${'?'.repeat(1 << 20)} HTTP/1.1\r\nhost: a\r\n\r\n`,
    'POST /stop HTT',
    'POST /stop HTTP/1.1\r\nhost: a\r\n',
    Buffer.alloc(1 << 16, 0xfe),
    '',
  ]
  const answers = await Promise.all(
    said.map(async (text) => {
      const socket = await connected(t, path)
      socket.write(text)
      return await rest(socket)
    }),
  )
  for (const answer of answers) t.notRegex(answer, / 200 /)
  t.is((await ask(url, '/status')).status, 200)
  t.is(await vm.wrong(0, pages, 'source'), 0)
})

test('a body is not read, and nothing may follow it', async (t) => {
  const { path, url } = await controlled(t)
  const socket = await connected(t, path)
  const smuggled = 'POST /stop HTTP/1.1\r\nhost: a\r\n\r\n'
  socket.write(`GET /status HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n${smuggled}`)
  const answer = await rest(socket)
  t.is(answer.match(/HTTP\/1\.1/g)?.length, 1)
  t.is((await ask(url, '/status')).status, 200)
})

test('who asks again and again and never reads is hung up on, and holds up nobody', async (t) => {
  const { stage, path, url } = await controlled(t)
  const { process: vm } = await stage.guest()
  const socket = await connected(t, path)
  socket.pause()
  socket.write('GET /dump HTTP/1.1\r\nhost: a\r\n\r\n'.repeat(10_000))
  t.is((await ask(url, '/status')).status, 200)
  t.is(await vm.wrong(0, pages, 'source'), 0)
  t.true(((await rest(socket)).match(/HTTP\/1\.1/g)?.length ?? 0) <= 1)
})

test('a thousand connections keep no guest from its pages, and others are served after them', async (t) => {
  const { stage, path, url } = await controlled(t)
  const hangUp = crowd(t, { path })
  const { process: vm } = await stage.guest()
  t.is(await vm.wrong(0, pages, 'source'), 0)
  hangUp()
  await answersAt(url, '/status')
  t.pass()
})

test('a socket that nobody listens on any more is taken over, and nothing else is', async (t) => {
  const { stage } = await controlled(t)
  const path = join(temporaryDirectory(t), 'control')
  leaveSocket(path)
  await stage.server.control(pathToFileURL(path))
  t.is((await ask(`unix:${path}`, '/status')).status, 200)
  await t.throwsAsync(stage.server.control(path), {
    code: 'ERR_UFFD_CONTROL',
    message: /^Cannot be controlled: somebody already listens on .*choose another path/,
  })
  const file = join(temporaryDirectory(t), 'mine')
  writeFileSync(file, 'my own')
  await t.throwsAsync(stage.server.control(file), { code: 'ERR_UFFD_CONTROL' })
  t.is(statSync(file).size, 6)
  await t.throwsAsync(stage.server.control('/no/such/dir/control'), { code: 'ERR_UFFD_CONTROL' })
  for (const wrong of ['', `/${'x'.repeat(120)}`, 7 as unknown as string]) {
    await t.throwsAsync(stage.server.control(wrong), { code: 'ERR_UFFD_INVALID_OPTION' })
  }
})

test('it may be closed before its server, and again; a server that has stopped has none', async (t) => {
  const { stage, endpoint, path } = await controlled(t)
  await endpoint.close()
  await endpoint.close()
  t.false(existsSync(path))
  await stage.server.control(path)
  await stage.server.stop()
  t.false(existsSync(path))
  await t.throwsAsync(stage.server.control(path), { code: 'ERR_UFFD_SERVER_CLOSED' })
  t.false(existsSync(path))
})

/** Says something at a socket as another user, and prints what it hears. */
const speakAs = `
  process.setgid(65534)
  process.setuid(65534)
  const socket = require('node:net').connect(process.argv[1])
  socket.write('POST /stop HTTP/1.1\\r\\nhost: a\\r\\n\\r\\n')
  socket.on('data', (data) => process.stdout.write(data))
  socket.on('error', ({ code }) => process.stdout.write(code))`

const asRoot = process.geteuid?.() === 0 ? test : test.skip

asRoot('another user is not let in, nor heard where the mode would let it in', async (t) => {
  const { stage, path, url } = await controlled(t)
  const { process: vm } = await stage.guest()
  chmodSync(join(path, '..'), 0o755)
  const speak = () =>
    new Promise<string>((resolve, reject) => {
      execFile(process.execPath, ['-e', speakAs, path], (error, stdout) =>
        error === null ? resolve(stdout) : reject(error),
      )
    })
  t.is(await speak(), 'EACCES')
  chmodSync(path, 0o666)
  t.notRegex(await speak(), /HTTP/)
  t.is((await ask(url, '/status')).status, 200)
  t.is(await vm.wrong(0, pages, 'source'), 0)
})
