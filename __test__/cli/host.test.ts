import test from 'ava'
import { type Host } from '#native'
import { warnOfHost } from '../../src/cli/serve/host.js'
import { type Output } from '../../src/cli/output/output.js'

/** What a server would say at its start on a host. */
function said(host: Partial<Host>): string[] {
  const lines: string[] = []
  const output = {
    tell: (_level: string, _facts: unknown, text: string) => void lines.push(text),
  } as unknown as Output
  const absent = { systemCall: 'absent', userModeOnly: 'absent', device: 'absent' } as const
  warnOfHost(output, {
    ...absent,
    pidfd: 'granted',
    peerPidfd: 'granted',
    memfd: 'granted',
    ...host,
  })
  return lines
}

test('nothing is said where a userfaultfd can be had', (t) => {
  t.deepEqual(said({ systemCall: 'granted' }), [])
  t.deepEqual(said({ device: 'granted', systemCall: 'denied' }), [])
})

test('who may not create one is told what that means', (t) => {
  const [line, ...rest] = said({ systemCall: 'denied', userModeOnly: 'granted', device: 'denied' })
  t.is(rest.length, 0)
  t.regex(line ?? '', /may not create a userfaultfd for KVM.*doctor/)
})

test('a kernel without it is an error', (t) => {
  t.throws(() => said({}), { code: 'ERR_UFFD_PLATFORM', message: /CONFIG_USERFAULTFD/ })
})
