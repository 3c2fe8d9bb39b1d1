import { GuestProcess as PublicGuest } from '../../src/testing/guest-process.js'

/** How long anything may take before a test fails instead of hanging. */
export const deadlineMs = 120_000

/** A request to the guest program, as crates/guest/src/protocol.rs has it. */
export type Op = { readonly op: string } & Record<string, unknown>

/** The guest process of `uffd-rs/testing`, asked for whatever its program can do. */
export class GuestProcess {
  readonly #guest: PublicGuest

  private constructor(guest: PublicGuest) {
    this.#guest = guest
  }

  /** Starts a guest; resolves once it has handed off, or was told to be silent. */
  static async start(socket: string, pages: string, ...args: string[]): Promise<GuestProcess> {
    const all = ['--socket', socket, '--pages', pages, ...args]
    return new GuestProcess(await PublicGuest.startAs(all))
  }

  get pid(): number {
    return this.#guest.pid
  }

  /** Resolves with the exit status once the process has ended, however that came. */
  get exited(): Promise<number | null> {
    return this.#guest.exited
  }

  /** Asks for something, and waits for the answer. */
  async ask<T>({ op, ...details }: Op): Promise<T> {
    return await this.#guest.ask<T>(op, details)
  }

  /** Reads pages whole, and counts those that hold something else than expected. */
  async wrong(page: number, count: number, expect: 'source' | 'zeros'): Promise<number> {
    return await this.#guest.wrongPages(page, count, expect)
  }

  /** Ends in good order; resolves with the exit status. */
  async exit(): Promise<number | null> {
    return await this.#guest.exit()
  }

  async kill(): Promise<number | null> {
    await this.#guest.kill()
    return await this.exited
  }
}
