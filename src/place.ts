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

  /** Reports that something else was expected here. */
  expected(what: string, value: unknown): never {
    const got = value === undefined ? 'nothing' : show(value)
    return this.fail(`Expected ${this.#named} to be ${what}, got ${got}`, value)
  }

  /** Reports a mistake that needs words of its own. */
  fail(message: string, value: unknown): never {
    throw new UffdValidationError(this.#code, message, this.path, value)
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
