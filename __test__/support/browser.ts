import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { type ExecutionContext } from 'ava'
import { type Browser, chromium, type Page } from 'playwright-core'
import { deadlineMs } from './guest.js'

const names = ['chromium', 'chromium-browser', 'google-chrome', 'chrome']

/** The first browser of the path, or that of `UFFD_TEST_BROWSER`. */
function browserPath(): string | undefined {
  const directories = (process.env['PATH'] ?? '').split(delimiter)
  const found = directories.flatMap((directory) => names.map((name) => join(directory, name)))
  return [process.env['UFFD_TEST_BROWSER'] ?? '', ...found].find((path) => {
    try {
      accessSync(path, constants.X_OK)
      return path !== ''
    } catch {
      return false
    }
  })
}

/** A page, and what went wrong in it so far. */
export interface Opened {
  readonly page: Page
  readonly complaints: readonly string[]
}

/**
 * A page of a browser without a screen, gone after the test; `undefined` where there is none, and
 * then the test says that it tried nothing.
 */
export async function openPage(
  t: ExecutionContext,
  options: Parameters<Browser['newPage']>[0] = {},
): Promise<Opened | undefined> {
  const executablePath = browserPath()
  if (executablePath === undefined) {
    t.log('skipped: there is no browser here')
    t.pass()
    return undefined
  }
  t.timeout(deadlineMs)
  const args = ['--no-sandbox', '--disable-gpu', '--js-flags=--expose-gc']
  const browser = await chromium.launch({ executablePath, args })
  t.teardown(() => browser.close())
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 }, ...options })
  page.setDefaultTimeout(deadlineMs)
  const complaints: string[] = []
  page.on('pageerror', ({ message }) => complaints.push(message))
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  return { page, complaints }
}
