import { integer, type Check, object } from './validate.js'

/** Who owns a file. */
export interface Owner {
  /** The number of the user. */
  readonly uid: number
  /** The number of the group. */
  readonly gid: number
}

const id = integer({ max: 2 ** 32 - 2 })

export const checkOwner: Check<Owner> = object<Owner>({ uid: id, gid: id })

const mostOfMode = 0o777

export const checkMode: Check<number> = (value, at) =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= mostOfMode
    ? value
    : at.expected('permissions such as 0o660, a whole number from 0 to 0o777', value)
