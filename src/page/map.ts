// The memory of a guest as a picture.
import type { PictureNow } from './feed.js'
import { bytes, type State, states } from './words.js'

/** The states in the order of their shares. */
const order: readonly State[] = ['unfaulted', 'clean', 'zero', 'dirty', 'removed', 'poisoned']

const columns = 128

/** How long a cell that changed stands out, in pictures. */
const glow = 3

export class MemoryMap {
  readonly #canvas: HTMLCanvasElement
  #shares = new Uint8Array()
  #changed = new Uint8Array()
  #pagesPerCell = 1
  #pageSize = 4096
  #guest = ''

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas
  }

  /** Takes a picture to draw; what differs from the one before stands out. */
  show({ guest, pagesPerCell, shares }: PictureNow, pageSize: number): void {
    const now = Uint8Array.from(atob(shares), (byte) => byte.codePointAt(0)!)
    const cells = now.length / 6
    const same = guest === this.#guest && now.length === this.#shares.length
    const changed = new Uint8Array(cells)
    for (let cell = 0; cell < (same ? cells : 0); cell++) {
      const at = 6 * cell
      let differs = false
      for (let share = at; share < at + 6; share++) differs ||= now[share] !== this.#shares[share]
      changed[cell] = differs ? glow : Math.max(0, this.#changed[cell]! - 1)
    }
    this.#guest = guest
    this.#shares = now
    this.#changed = changed
    this.#pagesPerCell = pagesPerCell
    this.#pageSize = pageSize
  }

  draw(): void {
    const canvas = this.#canvas
    const cells = this.#shares.length / 6
    const rows = Math.max(1, Math.ceil(cells / columns))
    const scale = Math.max(1, Math.floor((canvas.clientWidth * devicePixelRatio) / columns))
    canvas.width = columns * scale
    canvas.height = rows * scale
    const context = canvas.getContext('2d')!
    const style = getComputedStyle(canvas)
    const colours = order.map((state) => style.getPropertyValue(`--${state}`))
    const ink = style.getPropertyValue('--ink')
    const gap = scale > 3 ? 1 : 0
    for (let cell = 0; cell < cells; cell++) {
      const [x, y] = [(cell % columns) * scale, Math.floor(cell / columns) * scale]
      const shares = this.#shares.subarray(6 * cell, 6 * cell + 6)
      const sum = shares.reduce((all, share) => all + share, 0)
      if (sum === 0) continue
      context.globalAlpha = 1
      context.fillStyle = colours[0]!
      context.fillRect(x, y, scale - gap, scale - gap)
      let most = 1
      for (let state = 2; state < 6; state++) if (shares[state]! > shares[most]!) most = state
      if (shares[5]! > 0) most = 5
      if (shares[most]! > 0) {
        context.globalAlpha = 0.35 + 0.65 * (1 - shares[0]! / sum)
        context.fillStyle = colours[most]!
        context.fillRect(x, y, scale - gap, scale - gap)
      }
      if (this.#changed[cell]! > 0 && scale > 2) {
        context.globalAlpha = this.#changed[cell]! / glow
        context.strokeStyle = ink
        context.strokeRect(x + 0.5, y + 0.5, scale - gap - 1, scale - gap - 1)
      }
    }
    context.globalAlpha = 1
  }

  /** What is at a place of the canvas. */
  describe(x: number, y: number): string {
    const { clientWidth, clientHeight } = this.#canvas
    const rows = Math.ceil(this.#shares.length / 6 / columns)
    const cell =
      Math.floor((y / clientHeight) * rows) * columns + Math.floor((x / clientWidth) * columns)
    const shares = this.#shares.subarray(6 * cell, 6 * cell + 6)
    const sum = shares.reduce((all, share) => all + share, 0)
    if (sum === 0) return '\u00A0'
    const parts = order
      .map((state, at) => ({ state, share: Math.round((shares[at]! * 100) / sum) }))
      .filter(({ share }) => share > 0)
      .map(({ state, share }) => `${share} % ${states[state]}`)
    const size = this.#pagesPerCell * this.#pageSize
    return `${bytes(cell * size)} + ${bytes(size)}: ${parts.join(', ')}`
  }
}
