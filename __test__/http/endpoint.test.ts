import { connect, createServer, type Socket } from 'node:net'
import { once } from 'node:events'
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import test, { type ExecutionContext } from 'ava'
import { type HttpEndpoint } from '../../src/index.js'
import { deadlineMs, GuestProcess } from '../support/guest.js'
import { answersAt, ask, crowd, leaveSocket } from '../support/http.js'
import { index, pages as placePages, Place } from '../support/place.js'
import { promtoolIsContent } from '../support/promtool.js'
import { scrape, sum } from '../support/scrape.js'
import { snapshotFile, Stage, temporaryDirectory } from '../support/stage.js'
import { warnings } from '../support/warnings.js'

const pages = 64

/** A stage whose figures are served. */
async function watched(t: ExecutionContext, at = '127.0.0.1:0', perGuest = false) {
  const stage = await Stage.open(t, pages)
  const endpoint = await stage.server.http(at, { perGuest })
  return { stage, endpoint, url: endpoint.url }
}

/** Scrapes until something holds: figures are shown at the end of a turn of the fault loop. */
async function until(url: string, holds: (all: Awaited<ReturnType<typeof scrape>>) => boolean) {
  for (;;) {
    const all = await scrape(url)
    if (holds(all)) return all
  }
}

/** A connection that says what it is told, gone after the test. */
async function connected(t: ExecutionContext, { url }: HttpEndpoint): Promise<Socket> {
  const { hostname: host, port } = new URL(url)
  const socket = connect({ host, port: Number(port) })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** Everything that is sent until the other side hangs up. */
async function rest(socket: Socket): Promise<string> {
  let text = ''
  socket.setEncoding('utf8').on('data', (part: string) => (text += part))
  // However it is hung up: with an error too.
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
  return text
}

test('metrics follow a guest from its handoff to its end, and keep what it did', async (t) => {
  const { stage, url } = await watched(t)
  t.is(sum(await scrape(url), 'uffd_guests'), 0)

  const { guest, process } = await stage.guest()
  await process.wrong(0, 16, 'source')
  await process.ask({ op: 'write', page: 20, count: 2, stamp: 1 })
  await process.ask({ op: 'madvise', page: 8, count: 4 })
  const { faults, pages: states, copiedBytes, removedPages } = await guest.stats()
  const during = await until(
    url,
    (all) =>
      sum(all, 'uffd_faults_total') === faults &&
      sum(all, 'uffd_removed_pages_total') === removedPages,
  )
  t.is(sum(during, 'uffd_fault_seconds_count'), faults)
  t.is(sum(during, 'uffd_fault_seconds_bucket', { le: '+Inf' }), faults)
  t.is(sum(during, 'uffd_guests'), 1)
  t.is(sum(during, 'uffd_pages', { state: 'removed' }), states.removed)
  t.is(sum(during, 'uffd_pages'), pages)
  t.is(sum(during, 'uffd_copied_bytes_total'), Number(copiedBytes))
  t.is(sum(during, 'uffd_arrivals_total', { from: 'handoff' }), 1)

  await process.kill()
  const { stats } = await guest.ended
  const after = await scrape(url)
  t.is(sum(after, 'uffd_guests'), 0)
  t.is(sum(after, 'uffd_pages'), 0)
  t.is(sum(after, 'uffd_faults_total'), stats.faults)
  t.is(sum(after, 'uffd_ends_total', { reason: 'guest-exited' }), 1)
  t.is(sum(after, 'uffd_ends_total'), 1)
})

test('no counter goes down while guests come and go', async (t) => {
  const { stage, url } = await watched(t)
  const progress = { over: false }
  const coming = (async () => {
    for (let count = 0; count < 5; count++) {
      const { guest, process } = await stage.guest()
      await process.wrong(0, pages, 'source')
      await process.kill()
      await guest.ended
    }
    progress.over = true
  })()
  const last = new Map<string, number>()
  while (!progress.over) {
    const all = await scrape(url)
    for (const [name, { type, metrics }] of all) {
      if (type !== 'COUNTER') continue
      for (const { labels, value } of metrics) {
        const series = name + JSON.stringify(labels)
        t.true(Number(value) >= (last.get(series) ?? 0), series)
        last.set(series, Number(value))
      }
    }
  }
  await coming
  t.is(sum(await scrape(url), 'uffd_ends_total'), 5)
})

test('guests are told of as JSON, and as series of their own where that is asked for', async (t) => {
  const { stage, url } = await watched(t, '127.0.0.1:0', true)
  const { guest, process } = await stage.guest()
  await process.wrong(0, pages, 'source')
  const { faults } = await guest.stats()
  const all = await until(url, (now) => sum(now, 'uffd_faults_total') === faults)
  t.is(sum(all, 'uffd_guest_faults_total', { guest: guest.id }), faults)
  const { status, headers, body } = await ask(url, '/guests')
  t.is(status, 200)
  t.is(headers['content-type'], 'application/json; charset=utf-8')
  const { guests } = JSON.parse(body) as { guests: Record<string, unknown>[] }
  const [only] = guests
  t.is(guests.length, 1)
  t.like(only, {
    id: guest.id,
    pid: process.pid,
    memoryBytes: pages * 4096,
    pageSize: 4096,
    tracking: guest.tracking,
    now: { faultsInHand: 0, prefaultPendingPages: 0 },
  })
  const { counters, pages: states } = only as {
    counters: Record<string, number>
    pages: Record<string, number>
  }
  const { readFaults, writeFaults, protectFaults } = counters
  t.is(readFaults! + writeFaults! + protectFaults!, faults)
  t.is(
    Object.values(states).reduce((total, count) => total + count),
    pages,
  )
})

test('tags are labels of the series of guests where that is asked for', async (t) => {
  let named = 0
  const stage = await Stage.open(t, pages, {
    tags: (): Record<string, string> => (named++ === 0 ? { vm: 'a "b"', secret: 'x' } : {}),
  })
  const { guest } = await stage.guest()
  const { guest: other } = await stage.guest()
  const { url } = await stage.server.http('127.0.0.1:0', { perGuest: true, tagLabels: ['vm'] })
  const { body } = await ask(url, '/metrics')
  const lines = body.split('\n').filter((line) => line.startsWith('uffd_guest_removes_total{'))
  const expected = [
    `uffd_guest_removes_total{guest="${guest.id}",pid="${guest.pid}",vm="a \\"b\\""} 0`,
    `uffd_guest_removes_total{guest="${other.id}",pid="${other.pid}"} 0`,
  ]
  t.deepEqual(lines.toSorted(), expected.toSorted())
  t.false(body.includes('secret'))
})

test('what cannot be a label is refused by name', async (t) => {
  const { server } = await Stage.open(t, pages)
  for (const [options, message] of [
    [{ perGuest: true, tagLabels: ['a-b'] }, /"tagLabels\[0\]" to be the name of a label .*"a-b"/],
    [{ perGuest: true, tagLabels: ['__name__'] }, /name of a label/],
    [
      { perGuest: true, tagLabels: ['vm', 'guest'] },
      /"tagLabels\[1\]" to be a name that no label has/,
    ],
    [{ perGuest: true, tagLabels: ['state'] }, /a name that no label has/],
    [{ tagLabels: ['vm'] }, /"tagLabels" needs "perGuest"/],
  ] as const) {
    await t.throwsAsync(server.http('127.0.0.1:0', options), {
      code: 'ERR_UFFD_INVALID_OPTION',
      message,
    })
  }
})

test('promtool finds nothing wrong with a server and its guests, where it is installed', async (t) => {
  const { stage, url } = await watched(t, '127.0.0.1:0', true)
  const { process } = await stage.guest()
  await process.wrong(0, pages, 'source')
  await stage.guest()
  promtoolIsContent(t, ['check', 'metrics'], (await ask(url, '/metrics')).body)
})

test('scrapes are answered rightly while the event loop is busy', async (t) => {
  const { stage, url } = await watched(t)
  const progress = { over: false }
  const busy = (async () => {
    while (!progress.over) {
      const end = performance.now() + 20
      while (performance.now() < end);
      await new Promise(setImmediate)
    }
  })()
  const { guest, process } = await stage.guest()
  const reading = process.wrong(0, pages, 'source')
  const before = sum(await scrape(url), 'uffd_faults_total')
  t.is(await reading, 0)
  const { faults } = await guest.stats()
  const all = await until(url, (now) => sum(now, 'uffd_faults_total') === faults)
  t.true(before <= faults)
  t.is(sum(all, 'uffd_fault_seconds_count'), faults)
  t.is(sum(all, 'uffd_pages'), pages)
  progress.over = true
  await busy
})

test('while the event loop is blocked guests are served, and a scrape waits until it is free', async (t) => {
  t.timeout(deadlineMs)
  const snapshot = snapshotFile(t, pages)
  const directory = temporaryDirectory(t)
  const [socket, fifo] = [join(directory, 's'), join(directory, 'fifo')]
  t.is(spawnSync('mkfifo', [fifo]).status, 0)
  // It reads from the FIFO, and does nothing else, until somebody has written.
  const script = `
    const { listen } = require(${JSON.stringify(index)})
    listen(${JSON.stringify({ socket, snapshot, faultAround: false })}).then(async (server) => {
      const { url } = await server.http('0')
      console.log(url)
      process.stdin.once('data', () => {
        console.log('blocked')
        require('node:fs').readFileSync(${JSON.stringify(fifo)})
      })
    })`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['pipe', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async () => (await lines.next()).value as string
  const url = await line()
  const guest = await GuestProcess.start(socket, String(pages))
  t.teardown(() => guest.kill())
  while (sum(await scrape(url), 'uffd_guests') === 0);

  child.stdin.write('now\n')
  t.is(await line(), 'blocked')
  let isAnswered = false
  const waiting = scrape(url).finally(() => (isAnswered = true))
  t.is(await guest.wrong(0, pages, 'source'), 0)
  // Time enough for an answer, if anybody were to answer.
  for (let round = 0; round < 50; round++) {
    await guest.ask({ op: 'madvise', page: 0, count: pages })
    t.is(await guest.wrong(0, pages, 'zeros'), 0)
  }
  t.false(isAnswered)
  writeFileSync(fifo, '')
  t.true(sum(await waiting, 'uffd_faults_total') > 50 * pages)
})

test('each format is what it says, and nothing is to be kept', async (t) => {
  const { url } = await watched(t)
  const plain = await ask(url, '/metrics')
  t.is(plain.headers['content-type'], 'text/plain; version=0.0.4; charset=utf-8')
  t.is(plain.headers['cache-control'], 'no-store')
  const open = await ask(url, '/metrics', {
    headers: { accept: 'application/openmetrics-text; version=1.0.0' },
  })
  t.is(open.headers['content-type'], 'application/openmetrics-text; version=1.0.0; charset=utf-8')
  t.true(open.body.endsWith('\n# EOF\n'))
  t.deepEqual(await ask(url, '/healthz').then(({ status, body }) => [status, body]), [200, 'ok\n'])
  const head = await ask(url, '/metrics', { method: 'HEAD' })
  t.deepEqual([head.status, head.body], [200, ''])
})

test('what it has not is refused, and nothing changes anything', async (t) => {
  const { stage, url } = await watched(t)
  const { process } = await stage.guest()
  for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE']) {
    const { status, headers } = await ask(url, '/metrics', { method })
    t.deepEqual([status, headers['allow']], [405, 'GET, HEAD'], method)
  }
  for (const path of ['/nothing', '/metrics/', '/../etc/passwd', '/%2e%2e/', '//metrics']) {
    t.is((await ask(url, path)).status, 404, path)
  }
  t.is((await ask(url, '/metrics?anything=1')).status, 200)
  const body = 'x'.repeat(4096)
  t.is((await ask(url, '/healthz', { body })).headers['connection'], 'close')
  t.is(await process.wrong(0, pages, 'source'), 0)
})

test('a page of another name that points here is refused', async (t) => {
  const { url } = await watched(t)
  for (const host of ['evil.example', 'evil.example:80', '127.0.0.1.evil.example', '10.0.0.1']) {
    t.is((await ask(url, '/guests', { headers: { host } })).status, 403, host)
  }
  for (const host of ['localhost:9100', '127.0.0.1', '[::1]:9100']) {
    t.is((await ask(url, '/guests', { headers: { host } })).status, 200, host)
  }
})

test('huge requests and what is no HTTP are cut off', async (t) => {
  const { endpoint, url } = await watched(t)
  const huge = await connected(t, endpoint)
  huge.write(`GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: ${'y'.repeat(64 << 10)}\r\n\r\n`)
  t.notRegex(await rest(huge), / 200 /)
  const noise = await connected(t, endpoint)
  noise.write(Buffer.alloc(4096, 0xfe))
  t.notRegex(await rest(noise), / 200 /)
  t.is((await ask(url, '/healthz')).status, 200)
})

test('a client that says nothing, or half of it, is hung up on', async (t) => {
  const { endpoint, url } = await watched(t)
  const [silent, slow] = await Promise.all([connected(t, endpoint), connected(t, endpoint)])
  slow.write('GET /metrics HTT')
  t.notRegex((await Promise.all([rest(silent), rest(slow)])).join(''), / 200 /)
  t.is((await ask(url, '/healthz')).status, 200)
})

test('a thousand connections keep no guest from its pages, and others are served after them', async (t) => {
  const { stage, endpoint, url } = await watched(t)
  const { hostname: host, port } = new URL(endpoint.url)
  const hangUp = crowd(t, { host, port: Number(port) })
  const { process } = await stage.guest()
  t.is(await process.wrong(0, pages, 'source'), 0)
  hangUp()
  await answersAt(url, '/healthz')
  t.pass()
})

test('it listens on a Unix socket of its own, also where one was left', async (t) => {
  const path = join(temporaryDirectory(t), 'http.sock')
  const { endpoint, stage } = await watched(t, `unix:${path}`)
  t.is(endpoint.url, `unix:${path}`)
  t.is(statSync(path).mode & 0o777, 0o600)
  t.is((await ask(endpoint.url, '/healthz')).status, 200)
  await t.throwsAsync(stage.server.http(`unix:${path}`), { code: 'ERR_UFFD_HTTP' })
  await endpoint.close()
  writeFileSync(path, 'my own')
  await t.throwsAsync(stage.server.http(`unix:${path}`), { code: 'ERR_UFFD_HTTP' })
  t.is(readFileSync(path, 'utf8'), 'my own')
  rmSync(path)
  // Nobody listens on this one: the process that did was killed.
  leaveSocket(path)
  const again = await stage.server.http(`unix:${path}`)
  t.is((await ask(again.url, '/healthz')).status, 200)
})

test('where it cannot listen it says why', async (t) => {
  const { stage, url } = await watched(t)
  const { port } = new URL(url)
  const { server } = stage
  await t.throwsAsync(server.http(port), {
    code: 'ERR_UFFD_HTTP',
    message: /something else listens there; choose another port/,
  })
  await t.throwsAsync(server.http('unix:/no/such/dir/http.sock'), { code: 'ERR_UFFD_HTTP' })
  for (const wrong of ['', 'localhost', '127.0.0.1', '[nonsense]:1', '127.0.0.1:65536', 'a:b:1']) {
    await t.throwsAsync(server.http(wrong), { code: 'ERR_UFFD_INVALID_OPTION' }, wrong)
  }
  await t.throwsAsync(server.http(7 as unknown as string), { code: 'ERR_UFFD_INVALID_OPTION' })
})

test('it ends with its server, and may be closed before and again', async (t) => {
  const { stage, endpoint } = await watched(t)
  const other = await stage.server.http('[::1]:0')
  t.regex(other.url, /^http:\/\/\[::1\]:\d+$/)
  t.is((await ask(other.url, '/healthz')).status, 200)
  await other.close()
  await other.close()
  await stage.server.stop()
  // On a busy machine somebody else may have the port by now.
  await t.throwsAsync(ask(endpoint.url, '/healthz'), { message: /ECONN(?:REFUSED|RESET)/ })
})

test.serial('a defect in what is shown ends no process that guests depend on', async (t) => {
  const stage = await Stage.open(t, 4)
  const { server } = stage
  const { process } = await stage.guest()
  const { url } = await server.http('127.0.0.1:0')
  const watching = await fetch(`${url}/events`)
  const told = warnings(t)
  Object.assign(server, {
    figures: () => {
      throw new Error('a defect')
    },
  })
  t.is((await fetch(`${url}/metrics`)).status, 500)
  t.regex((await told.next()).message, /cannot be answered: Error: a defect/)
  await t.throwsAsync(fetch(`${url}/events`).then((events) => events.text()))
  t.regex((await told.next()).message, /cannot be answered: Error: a defect/)
  // Who watches already is hung up on.
  await t.throwsAsync(watching.text())
  t.is((await fetch(`${url}/healthz`)).status, 200)
  t.is(await process.wrong(0, 4, 'source'), 0)
})

test('a server that has ended opens none, which nobody would close', async (t) => {
  const stage = await Stage.open(t, 4)
  const { server } = stage
  const path = `${server.socket}.http`
  const stopped = server.stop()
  await t.throwsAsync(server.http(`unix:${path}`), { code: 'ERR_UFFD_SERVER_CLOSED' })
  await stopped
  await t.throwsAsync(server.http(`unix:${path}`), { code: 'ERR_UFFD_SERVER_CLOSED' })
  t.false(existsSync(path))
})

test('its place is free from the moment on that guests are left to the next server', async (t) => {
  const place = new Place(t)
  const server = await place.here()
  const { url } = await server.http('127.0.0.1:0')
  const { port } = new URL(url)
  const left = server.handOver()
  const next = createServer().listen({ host: '127.0.0.1', port: Number(port) })
  t.teardown(() => next.close())
  await once(next, 'listening')
  t.is(await left, 0)
})

test('a guest that was taken over is counted from then on', async (t) => {
  const place = new Place(t)
  const process = await place.left()
  const server = await place.here()
  const { url } = await server.http('0')
  const [guest] = server.recovered
  const before = await guest!.stats()
  t.true(before.faults > 0)
  const first = await scrape(url)
  t.is(sum(first, 'uffd_arrivals_total', { from: 'recovery' }), 1)
  t.is(sum(first, 'uffd_arrivals_total'), 1)
  t.is(sum(first, 'uffd_pages'), placePages)

  // What another process did is in the guest's statistics, and not in this server's metrics.
  await process.wrong(40, 8, 'source')
  const { faults } = await guest!.stats()
  const later = await until(
    url,
    (all) =>
      all.has('uffd_fault_seconds_count') &&
      sum(all, 'uffd_fault_seconds_count') === sum(all, 'uffd_faults_total'),
  )
  t.true(sum(later, 'uffd_faults_total') < faults)
  t.is(sum(later, 'uffd_not_recovered_total'), 0)
  t.is(sum(later, 'uffd_fault_seconds_count'), sum(later, 'uffd_faults_total'))
})

test('a guest that is not taken over is counted, and one that has ended is not', async (t) => {
  const place = new Place(t)
  await place.left()
  const ended = await place.left()
  await ended.kill()
  const server = await place.here({ snapshot: snapshotFile(t, 2 * placePages) })
  t.is(server.notRecovered.length, 1)
  t.is(server.swept.length, 1)
  const { url } = await server.http('0')
  t.is(sum(await scrape(url), 'uffd_not_recovered_total'), 1)
  t.is(sum(await scrape(url), 'uffd_arrivals_total'), 0)
})

test('guests that the guardian would serve are counted, for as long as it and they are there', async (t) => {
  const place = new Place(t)
  const server = await place.here({ guardian: true })
  const { url } = await server.http('0')
  t.is(sum(await scrape(url), 'uffd_guarded_guests'), 0)
  const guarded = async (count: number) => {
    await until(url, (all) => sum(all, 'uffd_guarded_guests') === count)
    t.pass()
  }
  const [one, other] = [await place.guest(server.socket), await place.guest(server.socket)]
  await guarded(2)
  // It is started again, and told of both.
  const { pid } = server.guardian!
  server.on('guardianTrouble', () => {})
  globalThis.process.kill(pid!, 'SIGKILL')
  while (server.guardian!.pid === pid) await scrape(url)
  await guarded(2)
  await one.kill()
  await guarded(1)
  await other.kill()
  await guarded(0)
})
