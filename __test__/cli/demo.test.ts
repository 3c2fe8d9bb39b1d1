import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'
import { type Host } from '#native'
import { checkHost } from '../../src/cli/demo/host.js'
import { cli } from '../support/command.js'
import { deadlineMs } from '../support/guest.js'
import { temporaryDirectory } from '../support/stage.js'

const host = (userModeOnly: Host['userModeOnly']): Host => ({
  systemCall: 'denied',
  userModeOnly,
  device: 'absent',
  pidfd: 'granted',
  peerPidfd: 'granted',
  memfd: 'granted',
})

test('faults of user mode are enough', (t) => t.notThrows(() => checkHost(host('granted'))))

test('who may create no userfaultfd is told before anything is started', (t) => {
  for (const access of ['denied', 'absent', 'refused'] as const) {
    t.throws(() => checkHost(host(access)), { code: 'ERR_UFFD_PLATFORM', message: /doctor/ })
  }
})

test('it leaves nothing behind, however often it is told to end', async (t) => {
  t.timeout(deadlineMs)
  const directory = temporaryDirectory(t)
  const demo = spawn(process.execPath, [cli, 'demo'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, TMPDIR: directory },
  })
  t.teardown(() => demo.kill('SIGKILL'))
  const ended = once(demo, 'exit')
  // Its first line comes when the snapshot is there.
  await once(demo.stdout, 'data')
  demo.kill('SIGINT')
  demo.kill('SIGTERM')
  await ended
  t.deepEqual(readdirSync(directory), [])
})

test('it serves three guests rightly, one of a killed server, and leaves a report about the first', async (t) => {
  t.timeout(deadlineMs)
  const directory = temporaryDirectory(t)
  const demo = spawn(process.execPath, [cli, 'demo'], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, TMPDIR: directory },
  })
  t.teardown(() => demo.kill('SIGKILL'))
  let said = ''
  demo.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
  const [status] = (await once(demo, 'close')) as [number]
  t.is(status, 0, said)
  t.regex(said, /^ {2}killed +process \d+, by SIGKILL, while the guest was reading$/m)
  t.regex(said, /^ {2}taken over +by this process, .* later$/m)
  t.regex(said, /^ {2}released +the guest runs on without any server: every byte is as it was$/m)
  t.regex(said, /^✓ Every byte was right: /m)
  const [, page] = /A report about the first run: (\S+)$/m.exec(said) ?? []
  t.regex(readFileSync(page!, 'utf8'), /The first run of the demo/)
  t.is(readdirSync(directory).length, 1)
})
