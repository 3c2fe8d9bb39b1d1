import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ExecutionContext } from 'ava'
import native from '#native'
import { type Guest, listen, type ListenOptions, type Server } from '../../src/index.js'
import { deadlineMs, GuestProcess } from './guest.js'

/** A directory that is gone after the test. */
export function temporaryDirectory(t: ExecutionContext, within = tmpdir()): string {
  const directory = mkdtempSync(join(within, 'uffd-rs-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A snapshot of `pages` pages, in a directory that is gone after the test. */
export function snapshotFile(t: ExecutionContext, pages: number, pageSize = 4096): string {
  const path = join(temporaryDirectory(t), 'mem')
  native.writeGuestSnapshot({ path, pages, pageSize })
  return path
}

/** A guest process, and the guest that serves it. */
export interface Served {
  readonly guest: Guest
  readonly process: GuestProcess
}

/** A snapshot that is being served, and the guests of the test. */
export class Stage {
  readonly server: Server
  readonly pages: number
  readonly #t: ExecutionContext

  private constructor(t: ExecutionContext, server: Server, pages: number) {
    this.#t = t
    this.server = server
    this.pages = pages
  }

  static async open(
    t: ExecutionContext,
    pages: number,
    more: Partial<ListenOptions> = {},
  ): Promise<Stage> {
    t.timeout(deadlineMs)
    const snapshot = snapshotFile(t, pages)
    const socket = join(temporaryDirectory(t), 'uffd.sock')
    const server = await listen({ socket, snapshot, ...more })
    t.teardown(() => server.stop())
    return new Stage(t, server, pages)
  }

  /** A guest process with all pages of the snapshot. */
  async process(...args: string[]): Promise<GuestProcess> {
    const guest = await GuestProcess.start(this.server.socket, String(this.pages), ...args)
    this.#t.teardown(() => guest.kill())
    return guest
  }

  /** A guest process that is being served. */
  async guest(...args: string[]): Promise<Served> {
    const [process, guest] = await Promise.all([
      this.process(...args),
      this.server.accept({ timeoutMs: deadlineMs }),
    ])
    return { guest, process }
  }
}
