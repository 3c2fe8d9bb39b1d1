import test from 'ava'
import { farthest } from '../../scripts/pipeline/targets.js'

const targets = ['x86_64', 'aarch64'].flatMap((processor) =>
  ['gnu', 'musl'].map((libc) => `${processor}-unknown-linux-${libc}`),
)

test('the target that is checked has another processor and another C library than the host', (t) => {
  t.is(farthest('x86_64-unknown-linux-gnu', targets), 'aarch64-unknown-linux-musl')
  t.is(farthest('aarch64-unknown-linux-gnu', targets), 'x86_64-unknown-linux-musl')
  t.is(farthest('x86_64-unknown-linux-musl', targets), 'aarch64-unknown-linux-gnu')
})
