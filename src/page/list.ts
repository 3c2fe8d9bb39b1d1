// The guests, a row each.
import type { GuestNow } from './feed.js'
import type { History } from './history.js'
import { bytes, micros, type State, states, whole } from './words.js'

interface Row {
  readonly element: HTMLTableRowElement
  readonly cells: readonly HTMLTableCellElement[]
  readonly bars: ReadonlyMap<State, HTMLElement>
}

const shown: readonly State[] = ['clean', 'zero', 'dirty', 'removed', 'poisoned']

export class GuestList {
  readonly #body: HTMLElement
  readonly #choose: (id: string) => void
  readonly #rows = new Map<string, Row>()

  constructor(body: HTMLElement, choose: (id: string) => void) {
    this.#body = body
    this.#choose = choose
  }

  /** The guests' ids, in the order of their rows. */
  get ids(): string[] {
    return [...this.#rows.keys()]
  }

  show(
    guests: readonly GuestNow[],
    histories: ReadonlyMap<string, History>,
    chosen?: string,
  ): void {
    const present = new Set(guests.map(({ id }) => id))
    for (const [id, { element }] of this.#rows) {
      if (present.has(id)) continue
      element.remove()
      this.#rows.delete(id)
    }
    for (const guest of guests) {
      const row = this.#rows.get(guest.id) ?? this.#add(guest)
      this.#fill(row, guest, histories.get(guest.id))
      row.element.setAttribute('aria-selected', String(guest.id === chosen))
      row.element.tabIndex = guest.id === chosen || chosen === undefined ? 0 : -1
    }
  }

  /** Shows which one is chosen, and takes the keyboard there. */
  focus(id: string): void {
    const element = this.#rows.get(id)?.element
    element?.focus()
    element?.scrollIntoView({ block: 'nearest' })
  }

  #add({ id, pid }: GuestNow): Row {
    const element = document.createElement('tr')
    element.dataset['guest'] = id
    element.addEventListener('click', () => this.#choose(id))
    element.addEventListener('keydown', ({ key }) => {
      if (key === 'Enter' || key === ' ') this.#choose(id)
    })
    const cells = Array.from({ length: 6 }, () => element.insertCell())
    cells[0]!.textContent = pid === undefined ? id.slice(0, 8) : `pid ${pid}`
    cells[0]!.title = id
    const bar = document.createElement('div')
    bar.className = 'bar'
    cells[2]!.append(bar)
    const bars = new Map(
      shown.map((state) => {
        const part = document.createElement('i')
        part.className = state
        part.title = states[state]
        bar.append(part)
        return [state, part]
      }),
    )
    this.#body.append(element)
    const row = { element, cells, bars }
    this.#rows.set(id, row)
    return row
  }

  #fill({ element, cells, bars }: Row, guest: GuestNow, history: History | undefined): void {
    const { memoryBytes, pageSize, pages, prefaultPendingPages, ended } = guest
    const say = (cell: number, words: string) => {
      if (cells[cell]!.textContent !== words) cells[cell]!.textContent = words
    }
    const now = history?.now
    element.classList.toggle('ended', ended !== undefined)
    say(1, bytes(memoryBytes))
    const total = memoryBytes / pageSize
    for (const [state, part] of bars) part.style.width = `${(100 * (pages[state] ?? 0)) / total}%`
    say(3, ended ?? (now === undefined ? '' : whole(now.faultsPerSecond)))
    say(4, now?.p99 === undefined ? '' : micros(now.p99))
    say(5, prefaultPendingPages === 0 ? '' : bytes(prefaultPendingPages * pageSize))
  }
}
