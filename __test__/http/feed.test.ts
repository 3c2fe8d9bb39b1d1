import { openSync, closeSync, ftruncateSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { EventEmitter, once } from 'node:events'
import { get, type IncomingMessage, type ServerResponse } from 'node:http'
import { Feed } from '../../src/http/feed.js'
import { listen } from '../../src/index.js'
import { deadlineMs, GuestProcess } from '../support/guest.js'
import { ask } from '../support/http.js'
import { Stage, temporaryDirectory } from '../support/stage.js'

const pages = 64

interface Told {
  readonly event: string
  readonly data: Record<string, unknown>
}

/** Whoever watches a server's events. */
class Watcher {
  readonly #response: IncomingMessage
  readonly #events: AsyncIterator<Told>

  private constructor(response: IncomingMessage) {
    this.#response = response
    this.#events = told(response)
  }

  static async start(t: ExecutionContext, url: string, guest?: string): Promise<Watcher> {
    const path = guest === undefined ? '/events' : `/events?guest=${guest}`
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      get(url + path, { agent: false }, resolve).on('error', reject)
    })
    t.teardown(() => response.destroy())
    t.is(response.headers['content-type'], 'text/event-stream')
    return new Watcher(response)
  }

  /** The next event of this name for which something holds. */
  async next(name: string, holds: (data: Told['data']) => boolean = () => true) {
    for (;;) {
      const { value, done } = await this.#events.next()
      if (done === true) throw new Error('The events have ended')
      const { event, data } = value
      if (event === name && holds(data)) return data
    }
  }

  leave(): void {
    this.#response.destroy()
  }
}

async function* told(response: IncomingMessage): AsyncGenerator<Told> {
  let text = ''
  for await (const part of response.setEncoding('utf8')) {
    text += part as string
    const blocks = text.split('\n\n')
    text = blocks.pop()!
    for (const block of blocks) {
      const [, event, data] = /^event: (\w+)\ndata: (.*)$/.exec(block)!
      yield { event: event!, data: JSON.parse(data!) as Told['data'] }
    }
  }
}

const guestsOf = (moment: Told['data']) => moment['guests'] as Record<string, unknown>[]

test('whoever watches is told of guests, of the memory of one, and of ends', async (t) => {
  const stage = await Stage.open(t, pages)
  const { url } = await stage.server.http('0')
  const { guest, process } = await stage.guest()
  const watcher = await Watcher.start(t, url, guest.id)
  const [first] = guestsOf(await watcher.next('moment'))
  t.like(first, { id: guest.id, pid: process.pid, memoryBytes: pages * 4096, pageSize: 4096 })
  await process.ask({ op: 'madvise', page: 0, count: 64 })
  const { guest: whose, pagesPerCell } = await watcher.next('picture', ({ shares }) =>
    Buffer.from(shares as string, 'base64').every(
      (share, at) => share === (at % 6 === 4 ? 255 : 0),
    ),
  )
  t.deepEqual([whose, pagesPerCell], [guest.id, 1])
  await process.kill()
  await watcher.next('moment', (moment) => guestsOf(moment)[0]?.['ended'] === 'guest-exited')
})

test('so many may watch and no more, and a guest that is not there has no picture', async (t) => {
  const stage = await Stage.open(t, pages)
  const { url } = await stage.server.http('0')
  const watchers = await Promise.all(
    Array.from({ length: 16 }, (_, number) => Watcher.start(t, url, `nobody-${number}`)),
  )
  t.is((await ask(url, '/events')).status, 503)
  t.is((await ask(url, '/healthz')).status, 200)
  watchers[3]!.leave()
  for (;;) {
    // The server learns of it a moment later.
    const { status } = await ask(url, '/events', { method: 'HEAD' })
    if (status === 200) break
  }
  await watchers[4]!.next('moment')
})

test('the memory of a guest of 64 GiB is a picture of 4,096 cells', async (t) => {
  t.timeout(deadlineMs)
  const directory = temporaryDirectory(t)
  const snapshot = join(directory, 'mem')
  const file = openSync(snapshot, 'w')
  ftruncateSync(file, 2 ** 36)
  closeSync(file)
  const socket = join(directory, 'uffd.sock')
  const server = await listen({ socket, snapshot, faultAround: false })
  t.teardown(() => server.stop())
  const process = await GuestProcess.start(socket, String(2 ** 24), '--zero-per-mille', '1000')
  t.teardown(() => process.kill())
  const guest = await server.accept()
  const { url } = await server.http('0')
  t.is(await process.wrong(2 ** 24 - 1, 1, 'source'), 0)
  const watcher = await Watcher.start(t, url, guest.id)
  const { pagesPerCell } = await watcher.next('picture', ({ shares }) => {
    const bytes = Buffer.from(shares as string, 'base64')
    // One page of the last cell was read, which the picture does not leave out.
    return bytes.length === 6 * 4096 && bytes.at(-4) === 1 && bytes.at(-6) === 254
  })
  t.is(pagesPerCell, 4096)
})

/** A client that has so much still to read, and what it was sent. */
class Client extends EventEmitter {
  writableLength = 0
  destroyed = false
  readonly sent: string[] = []

  write(text: string): void {
    this.sent.push(text)
    this.emit('told')
  }
}

test('who reads nothing misses what comes, and is told again once it reads', async (t) => {
  t.timeout(deadlineMs)
  const stage = await Stage.open(t, pages)
  const feed = new Feed(stage.server)
  const [slow, quick] = [new Client(), new Client()]
  for (const client of [slow, quick]) {
    feed.add(client as unknown as ServerResponse, undefined)
    t.teardown(() => client.emit('close'))
    t.is(client.sent.length, 1)
  }
  slow.writableLength = (1 << 20) + 1
  for (let moments = 0; moments < 2; moments++) await once(quick, 'told')
  t.is(slow.sent.length, 1)
  slow.writableLength = 0
  await once(slow, 'told')
  t.regex(slow.sent[1]!, /^event: moment\n/)
})
