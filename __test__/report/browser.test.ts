// The report of a real run of the demo, in a browser: what a person sees when they open the file. One
// after the other: each has a browser and a demo of its own.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { pathToFileURL } from 'node:url'
import { type Page } from 'playwright-core'
import test, { type ExecutionContext } from 'ava'
import { openPage } from '../support/browser.js'
import { cli } from '../support/command.js'
import { temporaryDirectory } from '../support/stage.js'

/** Pages of the demo's guest, and those that it gave back: the picture is of that moment. */
const pages = 16_384
const givenBack = { page: 1536, count: 8192 }

/** Runs the demo; resolves with the address of the report that it left. */
async function reportOfDemo(t: ExecutionContext): Promise<string> {
  const env = { ...process.env, TMPDIR: temporaryDirectory(t) }
  const demo = spawn(process.execPath, [cli, 'demo'], { stdio: ['ignore', 'pipe', 'inherit'], env })
  t.teardown(() => demo.kill('SIGKILL'))
  const [said, [status]] = await Promise.all([text(demo.stdout), once(demo, 'close')])
  t.is(status, 0, said)
  const [, file] = /A report about the first run: (\S+)$/m.exec(said)!
  return pathToFileURL(file!).href
}

/** How the map draws the cell of a page: the class of what is seen in its middle. */
async function drawn(page: Page, at: number, pagesPerCell: number): Promise<string> {
  const cell = Math.floor(at / pagesPerCell)
  return await page.evaluate<string>(`(() => {
    const map = document.querySelector('#map > svg')
    const [x, y] = [64 + ${cell % 128} * 7 + 3.5, ${Math.floor(cell / 128)} * 7 + 3]
    const { a, d, e, f } = map.getScreenCTM()
    return document.elementFromPoint(a * x + e, d * y + f)?.getAttribute('class') ?? 'nothing'
  })()`)
}

/** The colour of the first element that fits, as the reader gets it. */
const colour = (page: Page, selector: string, property: string) =>
  page.evaluate<string>(`getComputedStyle(document.querySelector('${selector}')).${property}`)

test.serial(
  'the report of the demo shows the memory as it was, and asks nothing of anybody',
  async (t) => {
    const opened = await openPage(t)
    if (opened === undefined) return
    const { page, complaints } = opened
    const asked: string[] = []
    page.on('request', (request) => asked.push(request.url()))
    const address = await reportOfDemo(t)
    await page.goto(address)
    t.is(await page.locator('h1').textContent(), 'The first run of the demo')

    const note = await page.locator('#map > p').textContent()
    const pagesPerCell = Number(/Each square is (\d+) page/.exec(note!)![1])
    const end = givenBack.page + givenBack.count
    // Not those at the borders, whose cells have pages of both sides.
    const border = 2 * pagesPerCell
    const expected: [from: number, to: number, looks: RegExp][] = [
      [0, givenBack.page - border, /^(clean|zero) f4$/],
      [givenBack.page + border, end - border, /^removed f4$/],
      [end + border, pages, /^unfaulted$/],
    ]
    // All of it in the window, where the browser can tell what is at a point.
    await page.setViewportSize({ width: 1200, height: 4000 })
    for (const [from, to, looks] of expected) {
      for (let at = from; at < to; at += 100) {
        t.regex(await drawn(page, at, pagesPerCell), looks, `page ${at}`)
      }
      t.regex(await drawn(page, to - 1, pagesPerCell), looks, `page ${to - 1}`)
    }
    t.is(await drawn(page, pages + pagesPerCell, pagesPerCell), 'nothing')
    const legend = (await page.locator('#map .legend').textContent())!
    t.regex(legend, /given back \(32 MiB\)/)
    t.regex(legend, /never needed \(26 MiB\)/)
    t.regex((await page.locator('#touches').textContent())!, /14,848 pages of the snapshot were/)
    t.regex((await page.locator('#advice').textContent())!, /waited for 14,848 pages/)

    t.deepEqual(asked, [address])
    t.deepEqual(complaints, [])
  },
)

test.serial('a report is light or dark, and fits a narrow window', async (t) => {
  const opened = await openPage(t)
  if (opened === undefined) return
  const { page, complaints } = opened
  await page.goto(await reportOfDemo(t))
  const looks = async () => [
    await colour(page, 'body', 'backgroundColor'),
    await colour(page, 'body', 'color'),
    await colour(page, '#map rect.removed', 'fill'),
  ]
  await page.emulateMedia({ colorScheme: 'light' })
  t.deepEqual(await looks(), ['rgb(255, 255, 255)', 'rgb(27, 31, 36)', 'rgb(142, 91, 208)'])
  await page.emulateMedia({ colorScheme: 'dark' })
  t.deepEqual(await looks(), ['rgb(20, 23, 27)', 'rgb(227, 232, 238)', 'rgb(183, 139, 240)'])

  await page.setViewportSize({ width: 360, height: 640 })
  const width = await page.evaluate<number>('document.documentElement.scrollWidth')
  t.true(width <= 360, `it is ${width} pixels wide`)
  t.deepEqual(complaints, [])
})
