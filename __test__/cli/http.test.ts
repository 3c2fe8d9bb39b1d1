import { dirname, join } from 'node:path'
import test from 'ava'
import { CommandProcess, runCommand } from '../support/command.js'
import { GuestProcess } from '../support/guest.js'
import { ask } from '../support/http.js'
import { scrape, sum } from '../support/scrape.js'
import { snapshotFile } from '../support/stage.js'

test('--http serves figures for as long as the command runs', async (t) => {
  const snapshot = snapshotFile(t, 64)
  const socket = join(dirname(snapshot), 'uffd.sock')
  const args = ['--socket', socket, '--snapshot', snapshot, '--once', '--http', '0']
  const command = new CommandProcess(t, ...args, '--http-guests')
  const { url } = (await command.event('http')) as unknown as { url: string }
  t.regex(url, /^http:\/\/127\.0\.0\.1:\d+$/)
  await command.event('ready')
  const guest = await GuestProcess.start(socket, '64')
  t.teardown(() => guest.kill())
  await command.event('guest')
  t.is(sum(await scrape(url), 'uffd_guest_pages'), 64)
  await guest.exit()
  t.is((await command.ended).status, 0)
  await t.throwsAsync(ask(url, '/healthz'), { code: 'ECONNREFUSED' })
})

test('an address that is none, or taken, is told before anything is served', async (t) => {
  const snapshot = snapshotFile(t, 64)
  const args = ['--socket', join(dirname(snapshot), 'uffd.sock'), '--snapshot', snapshot]
  const wrong = await runCommand(t, ...args, '--http', 'nowhere')
  t.is(wrong.status, 2)
  t.regex(wrong.stderr, /--http to be HOST:PORT/)
  const missing = await runCommand(t, ...args, '--http', 'unix:/no/such/dir/http.sock')
  t.is(missing.status, 1)
  t.regex(missing.stderr, /ERR_UFFD_HTTP/)
  t.is((await runCommand(t, ...args, '--http-guests')).status, 2)
})
