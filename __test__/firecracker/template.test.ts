import test from 'ava'
import {
  FirecrackerUnsupportedError,
  parseTemplate,
  templateBalloon,
  templateMachineConfig,
  UffdValidationError,
} from '../../src/index.js'
import { minorOf, releases } from '../support/firecracker-api/published.js'

const smallest = { firecracker: '1.14.1', memSizeMib: 512 }

for (const release of releases) {
  const has = minorOf(release) >= 14

  test(`${release}: the smallest template`, (t) => {
    const template = parseTemplate({ ...smallest, firecracker: release })
    t.deepEqual(templateMachineConfig(template), {
      vcpuCount: 1,
      memSizeMib: 512,
      hugePages: 'None',
      trackDirtyPages: false,
    })
    t.is(template.freePageReporting, has)
    t.deepEqual(
      templateBalloon(template),
      has
        ? {
            amountMib: 0,
            deflateOnOom: true,
            statsPollingIntervalS: 0,
            freePageReporting: true,
            freePageHinting: false,
          }
        : undefined,
    )
  })

  test(`${release}: reporting and hinting turned off need no balloon`, (t) => {
    const template = parseTemplate({
      firecracker: release,
      memSizeMib: 512,
      freePageReporting: false,
      freePageHinting: false,
    })
    t.is(templateBalloon(template), undefined)
  })

  for (const name of ['freePageReporting', 'freePageHinting'] as const) {
    test(`${release}: ${name} set to true is ${has ? 'taken' : 'refused'}`, (t) => {
      const parse = () => parseTemplate({ firecracker: release, memSizeMib: 512, [name]: true })
      if (has) {
        t.true(parse()[name])
      } else {
        const error = t.throws(parse, { instanceOf: FirecrackerUnsupportedError })
        t.like(error, { feature: name, needed: '1.14.0', actual: release })
      }
    })
  }
}

test('transparent huge pages need a Firecracker that has them', (t) => {
  const input = { memSizeMib: 512, hugePages: 'Transparent' }
  t.is(parseTemplate({ ...input, firecracker: '1.17.0-dev' }).hugePages, 'Transparent')
  t.throws(() => parseTemplate({ ...input, firecracker: '1.16.1' }), {
    code: 'ERR_UFFD_FIRECRACKER_UNSUPPORTED',
    message: /^transparentHugePages needs Firecracker 1\.17\.0 or later, but this is 1\.16\.1/,
  })
})

test('everything said is kept', (t) => {
  const template = parseTemplate(
    {
      firecracker: 'v1.16.1-dev',
      memSizeMib: 1024,
      vcpuCount: 4,
      hugePages: '2M',
      trackDirtyPages: true,
      freePageReporting: false,
      freePageHinting: true,
      balloon: { amountMib: 64, deflateOnOom: false, statsPollingIntervalS: 5 },
      snapshot: { statePath: 'vmstate', memoryPath: '/elsewhere/mem' },
    },
    '/templates/base',
  )
  t.is(String(template.firecracker), '1.16.1-dev')
  t.deepEqual(templateMachineConfig(template), {
    vcpuCount: 4,
    memSizeMib: 1024,
    hugePages: '2M',
    trackDirtyPages: true,
  })
  t.deepEqual(templateBalloon(template), {
    amountMib: 64,
    deflateOnOom: false,
    statsPollingIntervalS: 5,
    freePageReporting: false,
    freePageHinting: true,
  })
  t.deepEqual(template.snapshot, {
    statePath: '/templates/base/vmstate',
    memoryPath: '/elsewhere/mem',
  })
})

const expected = (field: string, what: string) =>
  `Expected the template field "${field}" to be ${what}`

const mistakes: [input: unknown, field: string, message: string][] = [
  [null, '', 'Expected the template fields to be an object, got null'],
  [
    { memSizeMib: 512 },
    'firecracker',
    'The template field "firecracker" is missing: expected a version of Firecracker such as "1.14.1"',
  ],
  [
    { firecracker: 1.14, memSizeMib: 512 },
    'firecracker',
    `${expected('firecracker', 'a version of Firecracker such as "1.14.1"')}, got 1.14`,
  ],
  [
    { firecracker: '1.14.1' },
    'memSizeMib',
    'The template field "memSizeMib" is missing: expected a whole number of MiB, at least 1',
  ],
  [
    { ...smallest, memSizeMib: 513, hugePages: '2M' },
    'memSizeMib',
    `${expected('memSizeMib', 'even, because hugePages is "2M"')}, got 513`,
  ],
  [
    { ...smallest, hugePages: '1G' },
    'hugePages',
    `${expected('hugePages', '"None", "Transparent" or "2M"')}, got the string "1G"`,
  ],
  [
    { ...smallest, vcpuCount: 33 },
    'vcpuCount',
    `${expected('vcpuCount', 'a whole number of vCPUs from 1 to 32')}, got 33`,
  ],
  [{ ...smallest, balloon: true }, 'balloon', `${expected('balloon', 'an object')}, got true`],
  [
    { ...smallest, balloon: { amountMib: 513 } },
    'balloon.amountMib',
    `${expected('balloon.amountMib', 'at most memSizeMib, which is 512')}, got 513`,
  ],
  [
    { ...smallest, balloon: { statsPollingIntervalS: 65_536 } },
    'balloon.statsPollingIntervalS',
    `${expected('balloon.statsPollingIntervalS', 'a whole number of seconds from 0 to 65535')}, got 65536`,
  ],
  [
    { ...smallest, freePageReporting: 'yes' },
    'freePageReporting',
    `${expected('freePageReporting', 'true or false')}, got the string "yes"`,
  ],
  [
    { ...smallest, balloon: { amount_mib: 5 } },
    'balloon.amount_mib',
    'Unknown template field "balloon.amount_mib". Did you mean "amountMib"? ' +
      'Known here: amountMib, deflateOnOom, statsPollingIntervalS',
  ],
  [
    { ...smallest, snapshot: { statePath: '/s' } },
    'snapshot.memoryPath',
    'The template field "snapshot.memoryPath" is missing: expected a path',
  ],
]

for (const [input, field, message] of mistakes) {
  test(`refuses ${JSON.stringify(input)}`, (t) => {
    const error = t.throws(() => parseTemplate(input), { instanceOf: UffdValidationError })
    t.is(error.code, 'ERR_UFFD_INVALID_TEMPLATE')
    t.is(error.field, field)
    t.is(error.message, message)
  })
}
