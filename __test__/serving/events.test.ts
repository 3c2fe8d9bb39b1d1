import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { type TraceEntry } from '../../src/index.js'
import { deadlineMs } from '../support/guest.js'
import { Stage, temporaryDirectory } from '../support/stage.js'
import { warnings } from '../support/warnings.js'

test('the trace comes whole and in order, however it is cut into batches', async (t) => {
  const pages = 8192
  const stage = await Stage.open(t, pages, { faultAround: false })
  const { guest, process } = await stage.guest()
  const all: TraceEntry[] = []
  const order: string[] = []
  guest.on('trace', (entries) => {
    all.push(...entries)
    order.push('trace')
  })
  guest.on('end', () => void order.push('end'))
  await process.ask({ op: 'touch', page: 0, count: pages })
  await process.exit()
  await guest.ended
  t.is(order.at(-1), 'end')
  t.is(order.filter((what) => what === 'end').length, 1)
  t.is(all.length, pages)
  // A trace keeps whole microseconds.
  const kept = all.map((entry) => ({ ...entry, timeMicros: Math.floor(entry.timeMicros) }))
  t.deepEqual(kept, [...(await guest.trace())])
  t.deepEqual(
    Array.from(all, ({ page }) => page),
    Array.from({ length: pages }, (_, page) => page),
  )
})

test('a listener that comes late gets the trace from its start', async (t) => {
  const stage = await Stage.open(t, 64, { faultAround: false })
  const { guest, process } = await stage.guest()
  await process.ask({ op: 'touch', page: 0, count: 64 })
  const [entries] = (await once(guest, 'trace')) as [readonly TraceEntry[]]
  t.is(entries.at(0)?.page, 0)
})

test('statistics come again and again while somebody listens', async (t) => {
  const stage = await Stage.open(t, 64, { statsIntervalMs: 5 })
  const { guest, process } = await stage.guest()
  await process.ask({ op: 'touch', page: 0, count: 64 })
  const [first] = await once(guest, 'stats')
  const [second] = await once(guest, 'stats')
  t.true(second.uptimeMs > first.uptimeMs)
  t.is(second.pages.faulted, 64)
  t.is(guest.listenerCount('stats'), 0)
})

test('listeners can be removed all at once and come back', async (t) => {
  const stage = await Stage.open(t, 64, { statsIntervalMs: 5 })
  const { guest } = await stage.guest()
  await once(guest, 'stats')
  guest.on('stats', () => t.fail('this listener was removed'))
  guest.removeAllListeners()
  await once(guest, 'stats')
  t.pass()
})

test.serial(
  'a listener that throws is a warning, and the others are told all the same',
  async (t) => {
    const stage = await Stage.open(t, 64)
    const { guest } = await stage.guest()
    const seen = warnings(t)
    guest.once('end', () => {
      throw new Error('thrown on purpose')
    })
    // What an async listener comes to, which types of Node.js do not forbid.
    const rejected: () => unknown = () => Promise.reject(new Error('rejected on purpose'))
    guest.on('end', rejected)
    const told = once(guest, 'end')
    await guest.stop()
    await told
    const messages = [(await seen.next()).message, (await seen.next()).message].toSorted()
    t.regex(messages[0]!, /"end" threw: Error: rejected on purpose/)
    t.regex(messages[1]!, /"end" threw: Error: thrown on purpose/)
    t.is(guest.listenerCount('end'), 1)
  },
)

test.serial('faults are served while JavaScript is blocked', async (t) => {
  const pages = 4096
  const stage = await Stage.open(t, pages, { faultAround: false, statsIntervalMs: 1 })
  const output = join(temporaryDirectory(t), 'output')
  const file = openSync(output, 'w')
  const program = fileURLToPath(new URL('../../dist/guest-program.js', import.meta.url))
  const args = [program, '--socket', stage.server.socket, '--pages', String(pages)]
  const child = spawn(process.execPath, args, { stdio: ['pipe', file, 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  closeSync(file)
  const guest = await stage.server.accept({ timeoutMs: deadlineMs })
  let batches = 0
  guest.on('trace', () => void batches++)
  // When the statistics were made, at the latest: a session starts before this.
  const [first] = await once(guest, 'stats')
  const startAtLatest = performance.now() - first.uptimeMs
  const made: number[] = []
  guest.on('stats', ({ uptimeMs }) => void made.push(startAtLatest + uptimeMs))
  await once(guest, 'stats')
  made.length = 0

  child.stdin!.write(`{"id":1,"op":"touch","page":0,"count":${pages}}\n`)
  // No turn of the event loop from here until the guest has touched every page, and a second more.
  const clock = new Int32Array(new SharedArrayBuffer(4))
  const start = Date.now()
  while (!readFileSync(output, 'utf8').includes('"reply"')) {
    Atomics.wait(clock, 0, 0, 5)
    if (Date.now() - start > deadlineMs) break
  }
  Atomics.wait(clock, 0, 0, 1000)
  const unblocked = performance.now()
  t.is(batches, 0)
  t.regex(readFileSync(output, 'utf8'), new RegExp(`"pages":${pages}\\b`))

  // A thousand were made meanwhile, and replaced each other: one is kept, and one more may have
  // been made, but not kept, when that one was taken.
  while (made.every((at) => at < unblocked)) await once(guest, 'stats')
  const old = made.filter((at) => at < unblocked)
  t.true(old.length <= 2, `${old.length} statistics were kept`)
  child.stdin!.end()
  const end = await guest.ended
  t.is(end.stats.readFaults, pages)
  t.is((await guest.trace()).length, pages)
})
