// What becomes of a guest's page faults while JavaScript is blocked: `npm run bench:blocked`, after
// `npm run build`. The same touches with the event loop free and with it blocked, in turns, each by
// a guest of its own; figures are ratios within a round.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import native from '#native'
import { listen } from '../dist/index.js'

const rounds = 9
const pages = 16_384
const blockedMs = 1500

const directory = mkdtempSync(join(tmpdir(), 'uffd-bench-blocked-'))
const snapshot = join(directory, 'mem')
const program = fileURLToPath(new URL('../dist/guest-program.js', import.meta.url))

async function touches(faultAround, blocked) {
  const server = await listen({ socket: join(directory, 'uffd.sock'), snapshot, faultAround })
  const child = spawn(
    process.execPath,
    [program, '--socket', server.socket, '--pages', `${pages}`, '--user-mode-only', 'auto'],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  )
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  await lines.next()
  const guest = await server.accept()
  const written = new Promise((resolve) => {
    child.stdin.write('{"id":1,"op":"bench","order":"random","seed":1}\n', resolve)
  })
  await written
  // Without taking up the processor: what is measured is the wait, not the competition.
  if (blocked) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockedMs)
  const { value } = await lines.next()
  const { nanos, latency } = JSON.parse(value).reply.ok
  child.stdin.end('{"id":2,"op":"exit"}\n')
  await Promise.all([guest.ended, once(child, 'exit')])
  await server.stop()
  if (blocked && nanos > blockedMs * 1e6) throw new Error('the touches outlasted the blockade')
  return { time: nanos, p50: latency.p50, p99: latency.p99 }
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]

try {
  native.writeGuestSnapshot({ path: snapshot, pages, pageSize: 4096, seed: 0 })
  for (const faultAround of [false, true]) {
    const ratios = { time: [], p50: [], p99: [] }
    for (let round = 0; round < rounds; round += 1) {
      const free = await touches(faultAround, false)
      const held = await touches(faultAround, true)
      for (const figure of Object.keys(ratios)) ratios[figure].push(held[figure] / free[figure])
    }
    const figures = Object.entries(ratios).map(([figure, values]) => {
      const [least, most] = [Math.min(...values), Math.max(...values)]
      return `${figure} ${median(values).toFixed(2)} (${least.toFixed(2)}–${most.toFixed(2)})`
    })
    const what = faultAround ? 'defaults' : 'one page per fault'
    console.log(`${what}, JavaScript blocked / free, ${rounds} rounds: ${figures.join(', ')}`)
  }
} finally {
  rmSync(directory, { recursive: true })
}
