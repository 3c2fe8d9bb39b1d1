// What a guest's page faults notice of those who look at its server's figures, and what that costs:
//
//   npm run build && cargo build --release -p uffd-guest && npm run bench:scraped [-- --rounds N]
//
// First: touches of single pages at random while nobody asks, and while clients of each kind do, in
// turns, each by a guest of its own; figures are ratios to nobody within a round, of what the guest saw
// and of what the fault loop took from reading a fault to its end (served). Then: the processor time of
// a process that serves 256 idle guests, with and without a scrape a second, in turns. `--only touches`
// and `--only cpu` do one of the two.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import native from '#native'
import { listen } from '../dist/index.js'

const number = (fallback) => ({ type: 'string', default: `${fallback}` })
const { values } = parseArgs({
  options: {
    rounds: number(9),
    pages: number(131_072),
    guests: number(256),
    seconds: number(20),
    'cpu-rounds': number(5),
    only: { type: 'string' },
  },
})
const [rounds, pages, guests] = [values.rounds, values.pages, values.guests].map(Number)
const [seconds, cpuRounds] = [values.seconds, values['cpu-rounds']].map(Number)

const path = (name) => fileURLToPath(new URL(name, import.meta.url))
const program = path('../target/release/uffd-guest')
const clientsOf = path('./bench-scraped/clients.js')

const kinds = {
  nobody: 'nobody',
  'each-second': 'a scrape a second',
  'without-pause': 'scrapes without a pause',
  elsewhere: 'the same scrapes of another server',
  thousand: 'a thousand connections',
  slow: '60 clients that send a byte each 100 ms',
}

const directory = mkdtempSync(join(tmpdir(), 'uffd-bench-scraped-'))

/** Lines that a program writes, and how to end it. */
function start(command, args) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async () => (await lines.next()).value
  const end = async () => {
    const exited = once(child, 'exit')
    child.kill('SIGKILL')
    await exited
  }
  return { child, line, end }
}

/** Clients of one kind, at work. */
async function clients(kind, url) {
  if (kind === 'nobody') return async () => {}
  const { line, end } = start(process.execPath, [clientsOf, kind, url])
  if ((await line()) !== 'ready') throw new Error(`the clients (${kind}) have not begun`)
  return end
}

const snapshotOf = (name, count) => {
  const snapshot = join(directory, name)
  native.writeGuestSnapshot({ path: snapshot, pages: count, pageSize: 4096, seed: 0 })
  return snapshot
}

const socket = join(directory, 'uffd.sock')
const guestArgs = (count) => ['--socket', socket, '--pages', `${count}`, '--user-mode-only', 'auto']

/** Touches all pages at random, one page per fault, while clients of this kind look. */
async function touches(kind, snapshot) {
  const server = await listen({ socket, snapshot, faultAround: false })
  const { url } = await server.http('0')
  const guest = start(program, guestArgs(pages))
  await guest.line()
  const served = await server.accept()
  const leave = await clients(kind, url)
  guest.child.stdin.write('{"id":1,"op":"bench","order":"random","seed":1}\n')
  const { nanos, latency } = JSON.parse(await guest.line()).reply.ok
  await leave()
  await guest.end()
  const { stats } = await served.ended
  await server.stop()
  const { p50, p99 } = latency
  return { time: nanos, p50, p99, 'served p50': stats.latency.p50, 'served p99': stats.latency.p99 }
}

const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)]

const spread = (list, digits) =>
  [median(list), Math.min(...list), Math.max(...list)].map((value) => value.toFixed(digits))

const shown = (list, digits = 2) => {
  const [middle, least, most] = spread(list, digits)
  return `${middle} (${least}–${most})`
}

async function compareTouches() {
  const snapshot = snapshotOf('mem', pages)
  const all = []
  for (let round = 0; round < rounds; round += 1) {
    const measured = {}
    const order = Object.keys(kinds)
    // Each is now the first and now the last.
    order.push(...order.splice(0, round % order.length))
    for (const kind of order) measured[kind] = await touches(kind, snapshot)
    all.push(measured)
    console.error(`round ${round + 1} of ${rounds}`)
  }
  const figures = Object.keys(all[0].nobody)
  const row = (name, kind, to) => {
    const ratios = figures.map((figure) =>
      shown(all.map((round) => round[kind][figure] / round[to][figure])),
    )
    console.log(`| ${name} | ${ratios.join(' | ')} |`)
  }
  console.log(`| while there are / | ${figures.join(' | ')} |`)
  console.log(`|---|${figures.map(() => '---|').join('')}`)
  for (const [kind, name] of Object.entries(kinds).slice(1)) row(`${name} / nobody`, kind, 'nobody')
  row('scrapes without a pause / the same of another server', 'without-pause', 'elsewhere')
}

/** Processor time of this process in percent of a core, while clients of this kind look. */
async function cpu(kind, url) {
  const leave = await clients(kind, url)
  const [time, before] = [performance.now(), process.cpuUsage()]
  await sleep(seconds * 1000)
  const { user, system } = process.cpuUsage(before)
  const percent = (user + system) / 10 / (performance.now() - time)
  await leave()
  return percent
}

async function compareCpu() {
  const server = await listen({ socket, snapshot: snapshotOf('small', 64) })
  const processes = []
  for (let count = 0; count < guests; count += 1) {
    const guest = start(program, guestArgs(64))
    processes.push(guest)
    await guest.line()
    guest.child.stdin.write('{"id":1,"op":"read","page":0,"count":64}\n')
    await guest.line()
  }
  const endpoints = {
    'one series for all': await server.http('0'),
    'series for each guest': await server.http('0', { perGuest: true }),
  }
  for (const [name, { url }] of Object.entries(endpoints)) {
    const [free, scraped] = [[], []]
    for (let round = 0; round < cpuRounds; round += 1) {
      free.push(await cpu('nobody', url))
      scraped.push(await cpu('each-second', url))
      console.error(`${name}: round ${round + 1} of ${cpuRounds}`)
    }
    const more = scraped.map((percent, at) => percent - free[at])
    console.log(
      `${guests} idle guests, ${name}: a scrape a second takes ${shown(more, 3)} % of a core ` +
        `(${shown(free, 3)} % without it)`,
    )
  }
  for (const guest of processes) await guest.end()
  await server.stop()
}

try {
  if (values.only !== 'cpu') await compareTouches()
  if (values.only !== 'touches') await compareCpu()
} finally {
  rmSync(directory, { recursive: true })
}
