import { inspect } from 'node:util'
import { UffdError } from '../errors.js'
import { show } from '../show.js'

const pattern = /^(?:firecracker\s+)?v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})([-+][\w.+-]+)?$/i

/**
 * A version of Firecracker, as it reports it or as a template names it.
 *
 * Only the three numbers are compared. A suffix does not say which side of a
 * release a build lies on: `1.14.0-dev` comes before 1.14.0, while
 * `1.14.0-12-gabcdef` is twelve commits after it. So a build counts as the
 * release it is named after, and one that lacks a feature all the same refuses
 * the request with a message of its own.
 */
export class FirecrackerVersion {
  /** The first number. */
  readonly major: number
  /** The second. */
  readonly minor: number
  /** The third. */
  readonly patch: number

  /** What follows the numbers, with its sign (`-dev`); empty for a release. */
  readonly suffix: string

  private constructor(major: number, minor: number, patch: number, suffix: string) {
    this.major = major
    this.minor = minor
    this.patch = patch
    this.suffix = suffix
  }

  /**
   * Reads `1.14.0`, `v1.14.0`, `1.14.0-dev`, `1.15.0-abc123+dirty` or the first
   * line of `firecracker --version`.
   */
  static parse(text: string): FirecrackerVersion {
    const match =
      typeof text === 'string' ? pattern.exec(text.trim().split('\n', 1)[0]!.trim()) : null
    if (match === null) {
      throw new UffdError(
        'ERR_UFFD_FIRECRACKER_BAD_VERSION',
        `Expected a version of Firecracker such as 1.14.1, got ${show(text)}`,
      )
    }
    const [, major, minor, patch, suffix] = match
    return new FirecrackerVersion(Number(major), Number(minor), Number(patch), suffix ?? '')
  }

  /** Negative, zero or positive, for `Array.prototype.sort`; suffixes do not count. */
  compare(other: FirecrackerVersion): number {
    return this.major - other.major || this.minor - other.minor || this.patch - other.patch
  }

  /** Whether it is this one or a later one. */
  atLeast(other: FirecrackerVersion | string): boolean {
    return this.compare(typeof other === 'string' ? FirecrackerVersion.parse(other) : other) >= 0
  }

  toString(): string {
    return `${this.major}.${this.minor}.${this.patch}${this.suffix}`
  }

  /** A version is shown as such, and not as an object. */
  [inspect.custom](): string {
    return this.toString()
  }

  toJSON(): string {
    return this.toString()
  }
}
