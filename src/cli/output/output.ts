import type { GuestFigures } from './figures.js'

/** How important an event is; the names of pino. */
export const levels = ['debug', 'info', 'warn', 'error', 'silent'] as const
export type Level = (typeof levels)[number]

/** What happened, for programs: its name, and figures of it. */
export type Facts = { readonly event: string } & Readonly<Record<string, unknown>>

/** Where the command tells what it does. */
export interface Output {
  /** Something happened. The text is for people and stands alone. */
  tell(level: Exclude<Level, 'silent'>, facts: Facts, text: string): void
  /** How a guest is doing, once an interval. */
  figures(figures: GuestFigures): void
  /** There will be no more figures of this guest. */
  gone(guest: number): void
  /** Nothing more will be told. */
  end(): void
}
