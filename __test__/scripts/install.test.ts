import test from 'ava'
import { isInstalled } from '../../scripts/pipeline/install.js'

const locked = {
  '': { version: '0.1.0' },
  'node_modules/a': { version: '1.0.0' },
  'node_modules/a-darwin': { version: '1.0.0', optional: true },
}

test('packages for other platforms may be absent', (t) => {
  t.true(isInstalled(locked, { 'node_modules/a': { version: '1.0.0' } }))
})

for (const [what, installed] of Object.entries({
  'nothing is there': undefined,
  'a package is missing': {},
  'a version is another': { 'node_modules/a': { version: '1.0.1' } },
  'there is one that is not locked': {
    'node_modules/a': { version: '1.0.0' },
    'node_modules/b': { version: '1.0.0' },
  },
})) {
  test(`stale: ${what}`, (t) => t.false(isInstalled(locked, installed)))
}
