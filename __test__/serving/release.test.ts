// Guests that get all they need, and then need no handler.
import { truncateSync } from 'node:fs'
import test from 'ava'
import { type ReleaseProgress } from '../../src/index.js'
import { Stage } from '../support/stage.js'

const pages = 256

test('a release tells how far it has come, and at last that all is there', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process } = await stage.guest()
  await process.ask({ op: 'madvise', page: 8, count: 4 })
  const told: ReleaseProgress[] = []
  guest.on('releasing', (progress) => told.push(progress))
  t.is((await guest.release()).reason, 'released')
  const last = told.at(-1)!
  t.is(last.done, pages)
  t.is(last.pages, pages)
  t.true(told.every(({ done, installed }) => installed <= done && done <= pages))
  await stage.server.stop()
  t.is(await process.wrong(8, 4, 'zeros'), 0)
  t.is(await process.wrong(12, pages - 12, 'source'), 0)
})

test('a release that cannot have a page is given up, and the guest served as before', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process } = await stage.guest()
  truncateSync(stage.server.snapshot, (pages / 2) * 4096)
  const error = await t.throwsAsync(guest.release(), { code: 'ERR_UFFD_RELEASE_SOURCE' })
  t.regex(error.message, /bytes of the snapshot cannot be had for 128 of its pages.*page 128/)
  t.is(guest.endSoFar, undefined)
  await process.ask({ op: 'madvise', page: 128, count: 64 })
  t.is(await process.wrong(128, 64, 'zeros'), 0)
  t.is(await process.wrong(0, 128, 'source'), 0)
})

test('a release that is given up leaves a guest that is served', async (t) => {
  const stage = await Stage.open(t, 4096)
  // It may be done before that.
  for (let isAborted = false; !isAborted;) {
    const { guest, process } = await stage.guest()
    const giveUp = new AbortController()
    const released = guest.release({ signal: giveUp.signal })
    giveUp.abort(new Error('on purpose'))
    const error: unknown = await released.then(
      () => undefined,
      (reason: unknown) => reason,
    )
    isAborted = error !== undefined
    if (isAborted) {
      t.like(error, { code: 'ERR_UFFD_ABORTED', cause: { message: 'on purpose' } })
      t.is(guest.endSoFar, undefined)
    }
    t.is(await process.wrong(0, 4096, 'source'), 0)
    await process.kill()
  }
})

test('who is served without a state directory can be released as well', async (t) => {
  const stage = await Stage.open(t, pages)
  const { guest, process } = await stage.guest()
  t.is((await guest.release()).reason, 'released')
  await t.throwsAsync(guest.release(), { code: 'ERR_UFFD_GUEST_ENDED' })
  await stage.server.stop()
  t.is(await process.wrong(0, pages, 'source'), 0)
})
