// A snapshot that is cut short while it is served: pages that cannot be had.
import { once } from 'node:events'
import { truncateSync } from 'node:fs'
import test, { type ExecutionContext } from 'ava'
import { type ListenOptions, type Notice, UffdPageError } from '../../src/index.js'
import { Stage } from '../support/stage.js'
import { warnings } from '../support/warnings.js'

const pages = 64
const kept = 10
const lost = 20

async function cutShort(t: ExecutionContext, more: Partial<ListenOptions>) {
  const stage = await Stage.open(t, pages, { faultAround: false, ...more })
  const served = await stage.guest()
  truncateSync(stage.server.snapshot, kept * 4096)
  return served
}

test('a page that cannot be had is poisoned, and that is noticed, however late', async (t) => {
  const { guest, process } = await cutShort(t, {})
  t.like(await process.ask({ op: 'touch', page: lost }), { poisoned: 1 })
  await guest.stats()
  const [notice] = (await once(guest, 'notice')) as [Notice]
  t.like(notice, { kind: 'poisoned', page: lost, unseen: 0 })
  t.regex(notice.message, /page 20 \(snapshot offset 81920\).*truncated/)
  t.is((await guest.pageStates()).stateOf(lost), 'poisoned')
  t.is((await guest.stats()).poisonedPages, 1)
})

test('a prefault says what it could not get', async (t) => {
  const { guest } = await cutShort(t, {})
  t.like(await guest.prefault('all'), {
    requested: pages,
    installed: kept,
    failed: pages - kept,
    firstFailed: kept,
  })
})

test.serial(
  'a guest that fails says which page and why, to everybody who might care',
  async (t) => {
    const seen = warnings(t)
    const { guest, process } = await cutShort(t, { onUnservable: 'fail' })
    void process.ask({ op: 'touch', page: lost }).catch(() => {})
    const warning = await seen.next()
    t.is(warning.code, 'ERR_UFFD_PAGE')
    t.regex(warning.message, new RegExp(`process ${process.pid}.*page 20`))
    const { reason, error } = await guest.ended
    t.is(reason, 'failed')
    t.true(error instanceof UffdPageError)
    t.like(error, { code: 'ERR_UFFD_PAGE', page: lost, offset: 81920n })
  },
)

test('a guest can be killed for it', async (t) => {
  const { guest, process } = await cutShort(t, { onUnservable: 'kill' })
  const ended = guest.ended
  await t.throwsAsync(process.ask({ op: 'touch', page: lost }), { message: /has exited$/ })
  const { reason, error } = await ended
  t.is(reason, 'failed')
  t.regex(error?.message ?? '', /the guest was killed/)
})

test('a session that fails can take its guest with it', async (t) => {
  const { guest, process } = await cutShort(t, { onUnservable: 'fail', killOnFailure: true })
  const ended = guest.ended
  await t.throwsAsync(process.ask({ op: 'touch', page: lost }), { message: /has exited$/ })
  t.is((await ended).reason, 'failed')
})
