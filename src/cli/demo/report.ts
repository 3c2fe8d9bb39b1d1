import { bytes, micros, several, whole } from '../../numbers.js'
import { hasColours } from '../output/terminal.js'
import { snapshotSize } from '../serve/snapshot-size.js'
import type { Checks } from './checks.js'
import type { KilledRun } from './killed-run.js'
import type { FirstRun, SecondRun, Start } from './runs.js'

const pageSize = 4096
const millis = (value: number) => micros(value * 1000)
const memory = (pages: number) => `${several(pages, 'page')} (${bytes(pages * pageSize)})`

/** Tells the story of the demo while it happens. */
export class Report {
  readonly #stream: NodeJS.WriteStream

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  async snapshot(path: string): Promise<void> {
    const { facts } = await snapshotSize(path)
    this.#title('uffd-rs: the memory of a restored guest, served page by page')
    this.#line(
      'snapshot',
      `${bytes(facts.snapshotBytes)}, ${bytes(facts.storedBytes)} of it stored`,
    )
  }

  firstRun({ pid, isUserModeOnly, start, givenBack, stale, states, traced }: FirstRun): void {
    this.#line('guest', `process ${pid}, which hands off its memory as Firecracker does`)
    this.#line(
      'userfaultfd',
      isUserModeOnly
        ? 'UFFD_USER_MODE_ONLY: this user may not have faults of the kernel (KVM needs them)'
        : 'faults of user mode and of the kernel, as KVM needs them',
    )

    this.#title('First run: nothing is in memory, and every page is served when it is missed')
    this.#start(start)

    this.#title('The guest gives memory back, and reads it again')
    this.#line('given back', memory(givenBack))
    this.#line('page states', `${whole(states.removed)} removed, ${whole(states.faulted)} faulted`)
    this.#line('read again', stale === 0 ? 'zeros, every byte' : `${memory(stale)} WERE NOT ZERO`)
    this.#line('trace', `${several(traced, 'page')} in the order they were needed, saved`)
  }

  secondRun(first: FirstRun, { prefault, prefaultMillis, start }: SecondRun): void {
    this.#title("Second run: prefetched with the first run's trace")
    this.#line('prefetched', `${memory(prefault.installed)} in ${millis(prefaultMillis)}`)
    this.#start(start)
    const factor = first.start.millis / (start.millis + prefaultMillis)
    this.#line('compared', `${factor.toFixed(1)} times as fast, with the prefetch counted in`)
  }

  killedRun({ access, takenOver }: KilledRun): void {
    this.#title('Third run: the server is killed, and another takes its guest over')
    if (takenOver === undefined) {
      const why = `this user may take no descriptor of another process (${access})`
      return this.#line('left out', `${why}: uffd-rs-serve doctor says more`)
    }
    const { pid, millis: time, states, isWholeAlone } = takenOver
    this.#line('killed', `process ${pid}, by SIGKILL, while the guest was reading`)
    this.#line('taken over', `by this process, ${millis(time)} later`)
    this.#line('page states', `${whole(states.removed)} removed, ${whole(states.faulted)} faulted`)
    const bytesThen = isWholeAlone ? 'every byte is as it was' : 'SOME BYTES ARE WRONG'
    this.#line('released', `the guest runs on without any server: ${bytesThen}`)
  }

  verdict({ pages, wrong }: Checks): void {
    const good = wrong === 0
    const text = good
      ? `✓ Every byte was right: ${memory(pages)} compared`
      : `✗ ${memory(wrong)} of ${whole(pages)} held wrong bytes`
    this.#stream.write(`\n${this.#paint(good ? 32 : 31, text)}\n`)
  }

  /** Where to look at the first run. */
  saved(page: string): void {
    this.#stream.write(`  A report about the first run: ${page}\n`)
  }

  #start({ touches, millis: time, stats }: Start): void {
    this.#line('touched', `${memory(touches)} in ${millis(time)}`)
    const { faults, latency, neighbourPages } = stats
    const around = neighbourPages > 0 ? `, which filled ${whole(neighbourPages)} neighbours` : ''
    const times = faults > 0 ? `; p50 ${micros(latency.p50)}, p99 ${micros(latency.p99)}` : ''
    this.#line('faults', `${whole(faults)}${around}${times}`)
  }

  #title(text: string): void {
    this.#stream.write(`\n${this.#paint(1, text)}\n`)
  }

  #line(name: string, text: string): void {
    this.#stream.write(`  ${name.padEnd(13)}${text}\n`)
  }

  #paint(style: number, text: string): string {
    return hasColours(this.#stream) ? `\u001B[${style}m${text}\u001B[0m` : text
  }
}
