import test from 'ava'
import {
  firecrackerFeatures,
  FirecrackerUnsupportedError,
  FirecrackerVersion,
  hasFeature,
  resolveFreePages,
  type FirecrackerFeature,
} from '../../src/index.js'
import { endpoints, minorOf, releases, type Rules } from '../support/firecracker-api/published.js'

const version = (text: string) => FirecrackerVersion.parse(text)
const load: Rules = endpoints['PUT /snapshot/load'].body
const machine: Rules = endpoints['PUT /machine-config'].body
const balloon: Rules = endpoints['PUT /balloon'].body

/** The features that the published descriptions show, and since when they do. */
const described: [FirecrackerFeature, number | undefined][] = [
  ['networkOverrides', load['network_overrides']?.since],
  ['trackDirtyPages', load['track_dirty_pages']?.since],
  ['vsockOverride', load['vsock_override']?.since],
  ['clockRealtime', load['clock_realtime']?.since],
  ['hugePagesOnLoad', load['huge_pages']?.since],
  ['transparentHugePages', machine['huge_pages']?.laterValues?.['Transparent']],
  ['freePageReporting', balloon['free_page_reporting']?.since],
  ['freePageHinting', balloon['free_page_hinting']?.since],
  ['freePageHinting', endpoints['PATCH /balloon/hinting/start'].since],
]

for (const release of releases) {
  test(`${release} has what its description has`, (t) => {
    for (const [feature, since] of described) {
      t.is(hasFeature(version(release), feature), minorOf(release) >= (since ?? NaN), feature)
    }
  })
}

test('every entry of the table is a version', (t) => {
  for (const since of Object.values(firecrackerFeatures)) t.is(String(version(since)), since)
})

for (const release of releases) {
  const has = minorOf(release) >= 14

  test(`${release}: left out, reporting is ${has ? 'on' : 'off'} and hinting off`, (t) => {
    t.deepEqual(resolveFreePages(version(release), {}), {
      freePageReporting: has,
      freePageHinting: false,
    })
  })

  test(`${release}: both can be turned off`, (t) => {
    const off = { freePageReporting: false, freePageHinting: false }
    t.deepEqual(resolveFreePages(version(release), off), off)
  })

  test(`${release}: both on is ${has ? 'taken' : 'refused'}`, (t) => {
    for (const name of ['freePageReporting', 'freePageHinting'] as const) {
      const resolve = () => resolveFreePages(version(release), { [name]: true })
      if (has) {
        t.true(resolve()[name])
      } else {
        const error = t.throws(resolve, { instanceOf: FirecrackerUnsupportedError })
        t.is(error.code, 'ERR_UFFD_FIRECRACKER_UNSUPPORTED')
        t.like(error, { feature: name, needed: '1.14.0', actual: release })
        t.is(
          error.message,
          `${name} needs Firecracker 1.14.0 or later, but this is ${release}. ` +
            `Upgrade Firecracker, or set ${name} to false or leave it out`,
        )
      }
    }
  })
}

test('the first version with reporting is 1.14.0 itself, and its builds', (t) => {
  t.true(resolveFreePages(version('1.14.0'), {}).freePageReporting)
  t.true(resolveFreePages(version('1.14.0-dev'), {}).freePageReporting)
  t.false(resolveFreePages(version('1.13.99'), {}).freePageReporting)
})
