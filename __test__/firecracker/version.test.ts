import test from 'ava'
import { FirecrackerVersion, UffdError } from '../../src/index.js'

const readable: [text: string, parts: [number, number, number, string]][] = [
  ['1.14.0', [1, 14, 0, '']],
  ['v1.14.0', [1, 14, 0, '']],
  ['1.14.0-dev', [1, 14, 0, '-dev']],
  ['1.15.0-abc123+dirty', [1, 15, 0, '-abc123+dirty']],
  ['v1.15.0-12-gabcdef0-dirty', [1, 15, 0, '-12-gabcdef0-dirty']],
  ['1.16.1+build.7', [1, 16, 1, '+build.7']],
  ['Firecracker v1.12.1', [1, 12, 1, '']],
  ['Firecracker v1.12.1\n\nSupported snapshot data format versions: v5.0.0\n', [1, 12, 1, '']],
  ['  1.10.1\n', [1, 10, 1, '']],
]

for (const [text, parts] of readable) {
  test(`reads ${JSON.stringify(text)}`, (t) => {
    const { major, minor, patch, suffix } = FirecrackerVersion.parse(text)
    t.deepEqual([major, minor, patch, suffix], parts)
  })
}

const garbage = [
  '',
  'latest',
  '1.14',
  '1.14.x',
  '1.14.0.1',
  '1.14.0dev',
  '1.14.0-',
  '-1.2.3',
  'v',
  '1.14.0 beta',
]

for (const text of garbage) {
  test(`refuses ${JSON.stringify(text)}`, (t) => {
    const error = t.throws(() => FirecrackerVersion.parse(text), { instanceOf: UffdError })
    t.is(error.code, 'ERR_UFFD_FIRECRACKER_BAD_VERSION')
    t.is(
      error.message,
      `Expected a version of Firecracker such as 1.14.1, got the string ${JSON.stringify(text)}`,
    )
  })
}

test('refuses what is not a string', (t) => {
  t.throws(() => FirecrackerVersion.parse(1.14 as unknown as string), {
    message: 'Expected a version of Firecracker such as 1.14.1, got 1.14',
  })
})

test('compares numbers, not text', (t) => {
  const sorted = ['1.9.12', '1.10.0', '1.10.1', '1.14.0', '2.0.0']
  const shuffled = ['2.0.0', '1.10.1', '1.9.12', '1.14.0', '1.10.0'].map((text) =>
    FirecrackerVersion.parse(text),
  )
  t.deepEqual(shuffled.toSorted((a, b) => a.compare(b)).map(String), sorted)
})

test('a build counts as the release it is named after', (t) => {
  const release = FirecrackerVersion.parse('1.14.0')
  for (const build of ['1.14.0-dev', '1.14.0-12-gabcdef0', '1.14.0+dirty']) {
    t.is(FirecrackerVersion.parse(build).compare(release), 0)
    t.true(FirecrackerVersion.parse(build).atLeast('1.14.0'))
  }
  t.false(FirecrackerVersion.parse('1.13.9-dev').atLeast('1.14.0'))
})

test('prints as it was reported, without the prefix', (t) => {
  t.is(String(FirecrackerVersion.parse('v1.15.0-abc123+dirty')), '1.15.0-abc123+dirty')
  t.is(JSON.stringify({ version: FirecrackerVersion.parse('1.14.1') }), '{"version":"1.14.1"}')
})
