import type { Options, Values } from './arguments/option.js'
import type { Page } from './arguments/help.js'

/** A command: its page of help, which is also the table its arguments are read by, and its work. */
export interface Command<T extends Options = Options> extends Page {
  /** The words that call it; none calls the command that needs no name. */
  readonly name: string
  /** For the list of commands. */
  readonly summary: string
  readonly options: T
  /** How many words it takes besides options; none without this. */
  readonly words?: { readonly names: string; readonly least: number; readonly most: number }
  /**
   * Resolves with the exit status. Loads what it needs itself: help and version are there on
   * every system.
   */
  readonly run: (values: Values<T>, words: readonly string[]) => Promise<number>
}

/** Lets the types of a command's values follow from its table. */
export function command<const T extends Options>(definition: Command<T>): Command {
  return definition as unknown as Command
}
