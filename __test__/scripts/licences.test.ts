import test from 'ava'
import { allows } from '../../scripts/licences/spdx.js'

const allowed = new Set(['MIT', 'Apache-2.0', 'Unicode-3.0'])

for (const expression of [
  'MIT',
  'MIT OR GPL-3.0',
  'GPL-3.0/Apache-2.0',
  '(MIT OR Apache-2.0) AND Unicode-3.0',
  'MIT AND (GPL-3.0 OR Apache-2.0)',
  'Apache-2.0 WITH LLVM-exception OR GPL-3.0',
]) {
  test(`allowed: ${expression}`, (t) => t.true(allows(expression, allowed)))
}

for (const expression of [
  undefined,
  '',
  'GPL-3.0',
  'MIT AND GPL-3.0',
  'GPL-3.0 OR MIT AND GPL-2.0',
  '(MIT OR Apache-2.0) AND GPL-3.0',
  'GPL-3.0 WITH Classpath-exception-2.0',
  'SEE LICENSE IN MIT',
  '(MIT',
]) {
  test(`not allowed: ${expression}`, (t) => t.false(allows(expression, allowed)))
}
