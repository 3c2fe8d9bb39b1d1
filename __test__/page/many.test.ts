// A hundred guests of 64 GiB each, made up, and an hour of updates as fast as the page takes them.
import test from 'ava'
import { HttpEndpoint } from '../../src/http/endpoint.js'
import { livePage } from '../../src/http/live-page.js'
import { type Page } from '../../src/http/respond.js'
import { openPage } from '../support/browser.js'

const guests = 100
const memoryBytes = 2 ** 36
const cells = 4096
const seconds = 3600

/** What the server would tell in this second. */
function moment(second: number) {
  const described = Array.from({ length: guests }, (_, number) => {
    const touched = (second * 40 + number * 1000) % (memoryBytes / 4096)
    return {
      // One guest in ten leaves each minute, and another comes; not the first, which is looked at.
      id: `guest-${number}-${number % 10 === 9 ? Math.floor(second / 60) : 0}`,
      pid: 1000 + number,
      memoryBytes,
      pageSize: 4096,
      faults: second * 40,
      latencies: [second * 30, second * 9, second],
      pages: { unfaulted: memoryBytes / 4096 - touched, clean: touched },
      prefaultPendingPages: 0,
      faultsInHand: 0,
    }
  })
  return { at: second * 1000, bounds: [1e-5, 1e-4], totals: { guests }, guests: described }
}

function picture(second: number): string {
  const shares = Buffer.alloc(6 * cells)
  for (let cell = 0; cell < cells; cell++) {
    const clean = (cell + second) % 256
    shares[6 * cell] = 255 - clean
    shares[6 * cell + 1] = clean
  }
  return shares.toString('base64')
}

test('an hour with a hundred large guests leaves nothing behind', async (t) => {
  const opened = await openPage(t)
  if (opened === undefined) return
  t.timeout(300_000)
  const { page, complaints } = opened
  const told = { second: 0 }
  const events: Page = (_request, query) => ({
    type: 'text/event-stream',
    stream: (response) => {
      const send = (event: string, data: unknown) =>
        response.write(`event: ${event}\ndata: ${JSON.stringify(data)}\n\n`)
      const tell = () => {
        if (response.destroyed || told.second >= seconds) return
        told.second++
        send('moment', moment(told.second))
        const guest = query.get('guest')
        const shown = {
          guest,
          pagesPerCell: memoryBytes / 4096 / cells,
          shares: picture(told.second),
        }
        const isRead = guest === null || send('picture', shown)
        // As fast as the page reads, and no faster.
        if (isRead) setImmediate(tell)
        else response.once('drain', tell)
      }
      tell()
    },
  })
  const endpoint = await HttpEndpoint.open(
    { host: '127.0.0.1', port: 0 },
    new Map([...(await livePage()), ['/events', events]]),
  )
  t.teardown(() => endpoint.close())
  await page.goto(endpoint.url)

  /** Elements of the page, and bytes of its heap, once so many seconds were told. */
  const weigh = async (second: number) => {
    for (let faults = 0; faults < second * 40;) {
      const facts = (await page.locator('#facts').textContent()) ?? ''
      faults = Number((/([\d,]+) faults/.exec(facts)?.[1] ?? '0').replaceAll(',', ''))
    }
    await page.evaluate('gc()')
    const heap = await page.evaluate<number>('performance.memory.usedJSHeapSize')
    const elements = await page.evaluate<number>(`document.querySelectorAll('*').length`)
    return { heap, elements }
  }
  const early = await weigh(seconds / 4)
  const late = await weigh(seconds - 1)
  t.is(late.elements, early.elements)
  const grown = late.heap - early.heap
  t.true(grown < 2 ** 21, `the heap has grown by ${grown} bytes`)
  t.is(await page.locator('tbody tr').count(), guests)
  t.deepEqual(complaints, [])
})
