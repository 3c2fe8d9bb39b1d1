import { type UffdError } from './errors.js'

/** Tells the operator of something that nobody in the program has asked to be told. */
export function warn(message: string, code?: UffdError['code']): void {
  process.emitWarning(message, { type: 'UffdWarning', ...(code !== undefined && { code }) })
}
