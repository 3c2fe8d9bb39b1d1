// The live page in a browser: what a person would do with it, and what they would see. One after
// the other: each has a browser of its own.
import { type Page } from 'playwright-core'
import test, { type ExecutionContext } from 'ava'
import { openPage } from '../support/browser.js'
import { CommandProcess } from '../support/command.js'
import { GuestProcess } from '../support/guest.js'
import { isAsItWas, live, pages as placePages, Place } from '../support/place.js'
import { Stage } from '../support/stage.js'

const pages = 1024

/** A stage, and the page of its server. */
async function watched(t: ExecutionContext) {
  const opened = await openPage(t)
  if (opened === undefined) return undefined
  const stage = await Stage.open(t, pages, { dirtyTracking: 'on', faultAround: false })
  const endpoint = await stage.server.http('0')
  await opened.page.goto(endpoint.url)
  return { ...opened, stage, endpoint }
}

const row = (page: Page, id: string) => page.locator(`tr[data-guest="${id}"]`)

/** Waits until an element's text fits. */
async function says(page: Page, selector: string, pattern: RegExp): Promise<void> {
  await page.locator(selector).filter({ hasText: pattern }).waitFor()
}

/** Points at a page of the map, again and again, until what is said of it fits. */
async function mapSays(page: Page, at: number, pattern: RegExp): Promise<void> {
  const { width, height } = (await page.locator('#map').boundingBox())!
  const rows = Math.ceil(pages / 128)
  const position = {
    x: (((at % 128) + 0.5) * width) / 128,
    y: ((Math.floor(at / 128) + 0.5) * height) / rows,
  }
  for (;;) {
    await page.locator('#map').hover({ position: { ...position, x: position.x + 0.5 } })
    await page.locator('#map').hover({ position })
    if (pattern.test((await page.locator('#cell').textContent()) ?? '')) return
  }
}

test.serial('it follows a guest from its handoff to its end', async (t) => {
  const setting = await watched(t)
  if (setting === undefined) return
  const { page, stage, complaints } = setting
  await says(page, '#none', /No guest is served/)

  const { guest, process } = await stage.guest()
  await row(page, guest.id).click()
  await says(page, '#name', new RegExp(guest.id))
  await says(page, '#facts', /4 MiB in pages of 4 KiB/)
  await mapSays(page, 200, /800 KiB \+ 4 KiB: 100 % not needed yet/)

  await process.wrong(200, 4, 'source')
  await process.ask({ op: 'write', page: 300, count: 2, stamp: 1 })
  await process.ask({ op: 'madvise', page: 400, count: 8 })
  await says(page, '#facts', /6 faults/)
  await mapSays(page, 200, /100 % from the snapshot/)
  await mapSays(page, 300, /100 % written/)
  await mapSays(page, 400, /100 % given back/)
  await mapSays(page, 500, /100 % not needed yet/)
  await says(page, '#legend', /given back 32 KiB/)

  await process.kill()
  await says(page, `tr[data-guest="${guest.id}"]`, /guest-exited/)
  await says(page, '#facts', /ended: guest-exited/)
  await says(page, '#totals', /ended\s*1/)
  // What was last seen of it stays.
  await mapSays(page, 300, /100 % written/)
  t.deepEqual(complaints, [])
})

test.serial('guests are chosen with the keyboard', async (t) => {
  const setting = await watched(t)
  if (setting === undefined) return
  const { page, stage, complaints } = setting
  const guests = [await stage.guest(), await stage.guest(), await stage.guest()]
  const [first, second, third] = guests.map(({ guest }) => guest.id)
  await row(page, third!).waitFor()
  const chosen = async () =>
    (await page.locator('tr[aria-selected="true"]').getAttribute('data-guest')) ?? undefined
  t.is(await chosen(), first)
  await page.keyboard.press('ArrowDown')
  t.is(await chosen(), second)
  await page.keyboard.press('j')
  t.is(await chosen(), third)
  // There is none behind the last.
  await page.keyboard.press('ArrowDown')
  t.is(await chosen(), third)
  await page.keyboard.press('ArrowUp')
  t.is(await chosen(), second)
  await says(page, '#name', new RegExp(second!))
  t.is(await page.evaluate('document.activeElement.dataset.guest'), second)
  t.deepEqual(complaints, [])
})

test.serial('it says that the server is away, and goes on when it comes back', async (t) => {
  const setting = await watched(t)
  if (setting === undefined) return
  const { page, stage, endpoint } = setting
  const { guest } = await stage.guest()
  await row(page, guest.id).waitFor()
  await says(page, '#link', /^live$/)
  await endpoint.close()
  await says(page, '#link', /away/)
  await stage.server.http(new URL(endpoint.url).port)
  await says(page, '#link', /^live$/)
  const other = await stage.guest()
  await row(page, other.guest.id).waitFor()
  t.true(await row(page, guest.id).isVisible())
})

test.serial('a guest whose server is killed is there again with the next server', async (t) => {
  const opened = await openPage(t)
  if (opened === undefined) return
  const { page } = opened
  const { socket, snapshot, stateDir } = new Place(t).options()
  const args = ['--socket', socket, '--snapshot', snapshot, '--state-dir', stateDir]
  const first = new CommandProcess(t, ...args, '--http', '0')
  const { url } = (await first.event('http')) as unknown as { url: string }
  await first.event('ready')
  const process = await GuestProcess.start(socket, String(placePages))
  t.teardown(() => process.kill())
  await live(process)
  await page.goto(url)
  const guest = page.locator('tr[data-guest]')
  await guest.click()
  const id = await guest.getAttribute('data-guest')
  await says(page, '#link', /^live$/)

  first.signal('SIGKILL')
  await first.ended
  await says(page, '#link', /away/)
  // What was last seen stays until there is news.
  t.true(await row(page, id!).isVisible())

  const second = new CommandProcess(t, ...args, '--http', new URL(url).port)
  await second.event('ready')
  await says(page, '#link', /^live$/)
  await isAsItWas(t, process)
  await says(page, `tr[data-guest="${id}"]`, new RegExp(`${process.pid}`))
  await says(page, '#legend', /written 8 KiB/)
  await process.kill()
  await says(page, `tr[data-guest="${id}"]`, /guest-exited/)
  t.is(await page.locator('tr[data-guest]').count(), 1)
})

test.serial('it is light or dark, as the reader likes it', async (t) => {
  const setting = await watched(t)
  if (setting === undefined) return
  const { page, stage, complaints } = setting
  await stage.guest()
  await page.locator('#detail').waitFor()
  /** Waits until paper and the first cell of the map have these colours. */
  const looks = async (colorScheme: 'light' | 'dark', paper: number[], cell: number[]) => {
    await page.emulateMedia({ colorScheme })
    const seen = async () => {
      const body = await page.evaluate<string>('getComputedStyle(document.body).backgroundColor')
      // The canvas is drawn anew with the next frame.
      const corner = await page.evaluate<number[]>(
        `[...document.querySelector('#map').getContext('2d').getImageData(0, 0, 1, 1).data]`,
      )
      return body === `rgb(${paper.join(', ')})` && corner.join() === [...cell, 255].join()
    }
    while (!(await seen()));
    t.pass()
  }
  await looks('light', [255, 255, 255], [236, 239, 242])
  await looks('dark', [20, 23, 27], [35, 40, 46])
  t.deepEqual(complaints, [])
})

test.serial('it asks nothing of anybody else', async (t) => {
  const opened = await openPage(t)
  if (opened === undefined) return
  const stage = await Stage.open(t, pages)
  const { url } = await stage.server.http('0')
  const asked: string[] = []
  opened.page.on('request', (request) => asked.push(request.url()))
  await opened.page.goto(url)
  await says(opened.page, '#link', /^live$/)
  t.true(asked.length > 3)
  for (const address of asked)
    t.true(address.startsWith(url) || address.startsWith('data:'), address)
  t.deepEqual(opened.complaints, [])
})
