import test from 'ava'
import { UffdValidationError } from '../src/index.js'
import { arrayOf, boolean, integer, object, oneOf, optional, options } from '../src/validate.js'

interface Sample {
  size: number
  mode?: 'fast' | 'safe' | undefined
  inner?: { flags: boolean[] } | undefined
}

const check = object<Sample>({
  size: integer({ min: 1, max: 8, unit: 'MiB' }),
  mode: optional(oneOf(['fast', 'safe'])),
  inner: optional(object<{ flags: boolean[] }>({ flags: arrayOf(boolean) })),
})

test('keeps what is right and drops what was left out', (t) => {
  t.deepEqual(check({ size: 1, mode: undefined }, options()), { size: 1 })
  t.deepEqual(check({ size: 8, mode: 'fast', inner: { flags: [true] } }, options()), {
    size: 8,
    mode: 'fast',
    inner: { flags: [true] },
  })
})

const mistakes: [name: string, input: unknown, field: string, message: string][] = [
  ['nothing at all', undefined, '', 'Expected the options to be an object, got nothing'],
  ['an array', [], '', 'Expected the options to be an object, got an empty array'],
  [
    'a required field left out',
    {},
    'size',
    'The option "size" is missing: expected a whole number of MiB from 1 to 8',
  ],
  [
    'a number as a string',
    { size: '4' },
    'size',
    'Expected the option "size" to be a whole number of MiB from 1 to 8, got the string "4"',
  ],
  [
    'a number out of range',
    { size: 9 },
    'size',
    'Expected the option "size" to be a whole number of MiB from 1 to 8, got 9',
  ],
  [
    'a value that is not on the list',
    { size: 1, mode: 'slow' },
    'mode',
    'Expected the option "mode" to be "fast" or "safe", got the string "slow"',
  ],
  [
    'an item of an array',
    { size: 1, inner: { flags: [true, null] } },
    'inner.flags[1]',
    'Expected the option "inner.flags[1]" to be true or false, got null',
  ],
  [
    'a misspelt field',
    { size: 1, mod: 'fast' },
    'mod',
    'Unknown option "mod". Did you mean "mode"? Known here: size, mode, inner',
  ],
  [
    'a field nobody knows',
    { size: 1, quux: 1 },
    'quux',
    'Unknown option "quux". Known here: size, mode, inner',
  ],
]

for (const [name, input, field, message] of mistakes) {
  test(`refuses ${name}`, (t) => {
    const error = t.throws(() => check(input, options()), { instanceOf: UffdValidationError })
    t.is(error.code, 'ERR_UFFD_INVALID_OPTION')
    t.is(error.field, field)
    t.is(error.message, message)
  })
}

test('does not take inherited properties for fields', (t) => {
  const input = Object.create({ size: 1 }) as unknown
  t.throws(() => check(input, options()), { message: /"size" is missing/ })
})
