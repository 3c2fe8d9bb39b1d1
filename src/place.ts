import { closest } from './closest.js'
import { UffdValidationError, type UffdErrorCode } from './errors.js'
import { show } from './show.js'

/** Where a value stands in what the user wrote, and how a mistake there is reported. */
export class Place {
  readonly #code: UffdErrorCode
  readonly #noun: string
  readonly path: string

  constructor(code: UffdErrorCode, noun: string, path = '') {
    this.#code = code
    this.#noun = noun
    this.path = path
  }

  field(name: string): Place {
    return new Place(this.#code, this.#noun, this.path === '' ? name : `${this.path}.${name}`)
  }

  item(index: number): Place {
    return new Place(this.#code, this.#noun, `${this.path}[${index}]`)
  }

  /** Reports that something else was expected here than the value, which is shown as `shown`. */
  expected(what: string, value: unknown, shown = show(value)): never {
    const isMissing = value === undefined && this.path !== ''
    const message = isMissing
      ? `The ${this.#noun} "${this.path}" is missing: expected ${what}`
      : `Expected ${this.#named} to be ${what}, got ${value === undefined ? 'nothing' : shown}`
    return this.fail(message, value)
  }

  /** Reports a mistake that needs words of its own. */
  fail(message: string, value: unknown): never {
    const { stackTraceLimit } = Error
    // The checks alone can take up the ten calls that a stack shows.
    Error.stackTraceLimit = 32
    try {
      throw new UffdValidationError(this.#code, message, this.path, value)
    } finally {
      Error.stackTraceLimit = stackTraceLimit
    }
  }

  unknownField(name: string, known: readonly string[], value: unknown): never {
    const near = closest(name, known)
    const hint = near === undefined ? '' : ` Did you mean "${near}"?`
    const place = this.field(name)
    return place.fail(
      `Unknown ${this.#noun} "${place.path}".${hint} Known here: ${known.join(', ')}`,
      value,
    )
  }

  get #named(): string {
    return this.path === '' ? `the ${this.#noun}s` : `the ${this.#noun} "${this.path}"`
  }
}

/** The place of the options given to a function of this package. */
export const options = (): Place => new Place('ERR_UFFD_INVALID_OPTION', 'option')

/** The place of an argument of such a function. */
export const argument = (name: string): Place =>
  new Place('ERR_UFFD_INVALID_OPTION', 'argument', name)
