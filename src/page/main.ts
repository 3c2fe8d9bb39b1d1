// The live page: guests in a list, and one of them with its memory.
import { chart } from './chart.js'
import { Feed, type GuestNow, type Moment } from './feed.js'
import { History, mostSteps } from './history.js'
import { GuestList } from './list.js'
import { MemoryMap } from './map.js'
import { bytes, micros, type State, states, whole } from './words.js'

const get = (id: string): HTMLElement => document.querySelector(`#${id}`)!
const canvasOf = (id: string) => get(id) as HTMLCanvasElement

const histories = new Map<string, History>()
const map = new MemoryMap(canvasOf('map'))
const list = new GuestList(get('guests'), choose)
const feed = new Feed({ moment, picture: (now) => showPicture(now), link })

let last: Moment | undefined
/** What is told is shown with the next frame. */
let isDue = false
/** The guest that is looked at; stays when it has ended. */
let chosen: string | undefined

function choose(id: string): void {
  chosen = id
  feed.look(id)
  show()
  list.focus(id)
}

function moment(now: Moment): void {
  last = now
  const present = new Set(now.guests.map(({ id }) => id))
  for (const id of histories.keys()) if (!present.has(id)) histories.delete(id)
  for (const guest of now.guests) {
    const history = histories.get(guest.id) ?? new History()
    histories.set(guest.id, history)
    if (guest.ended === undefined) history.add(now, guest)
  }
  if (chosen === undefined || !present.has(chosen)) {
    const [first] = now.guests
    chosen = first?.id
    feed.look(chosen)
  }
  soon()
}

/** Shows everything with the next frame: once, however much comes until then. */
function soon(): void {
  if (isDue) return
  isDue = true
  requestAnimationFrame(() => {
    isDue = false
    show()
    map.draw()
  })
}

function guestNow(): GuestNow | undefined {
  return last?.guests.find(({ id }) => id === chosen)
}

function showPicture(now: Parameters<MemoryMap['show']>[0]): void {
  if (now.guest !== chosen) return
  const guest = guestNow()
  if (guest === undefined) return
  map.show(now, guest.pageSize)
  soon()
}

function show(): void {
  const { guests = [], totals = {} } = last ?? {}
  list.show(guests, histories, chosen)
  get('none').hidden = guests.length > 0
  get('totals').replaceChildren(
    ...Object.entries(totals).map(([name, value]) => pair(name, whole(value))),
  )
  const guest = guestNow()
  get('detail').hidden = guest === undefined
  if (guest !== undefined) detail(guest)
}

function pair(name: string, value: string): HTMLElement {
  const [both, term, words] = ['div', 'dt', 'dd'].map((tag) => document.createElement(tag))
  term!.textContent = name
  words!.textContent = value
  both!.append(term!, words!)
  return both!
}

function detail({ id, pid, memoryBytes, pageSize, pages, ended, ...guest }: GuestNow): void {
  const history = histories.get(id)
  const now = history?.now
  get('name').textContent = pid === undefined ? id : `Process ${pid} · ${id}`
  const facts = [
    `${bytes(memoryBytes)} in pages of ${bytes(pageSize)}`,
    `${whole(guest.faults)} faults`,
    ...(ended === undefined ? [] : [`ended: ${ended}`]),
    ...(guest.faultsInHand > 0 ? [`${whole(guest.faultsInHand)} in hand`] : []),
    ...(guest.prefaultPendingPages > 0
      ? [`${bytes(guest.prefaultPendingPages * pageSize)} still to prefetch`]
      : []),
    ...(now?.p50 === undefined ? [] : [`half within ${micros(now.p50)}`]),
  ]
  get('facts').textContent = facts.join(' · ')
  get('legend').replaceChildren(
    ...(Object.keys(states) as State[]).map((state) => {
      const item = document.createElement('li')
      const swatch = document.createElement('i')
      swatch.className = state
      item.append(swatch, `${states[state]} ${bytes((pages[state] ?? 0) * pageSize)}`)
      return item
    }),
  )
  const steps = history?.steps ?? []
  const perSecond = { colour: 'clean', values: steps.map((step) => step.faultsPerSecond) }
  chart(canvasOf('faults'), [perSecond], mostSteps, (most) => `${whole(most)}/s`)
  const times = [
    { colour: 'clean', values: steps.map(({ p50 }) => p50) },
    { colour: 'dirty', values: steps.map(({ p99 }) => p99) },
  ]
  chart(canvasOf('latency'), times, mostSteps, micros, true)
}

function link(there: boolean): void {
  const element = get('link')
  const words = there ? 'live' : 'the server is away; waiting for it'
  if (element.textContent !== words) element.textContent = words
  element.classList.toggle('away', !there)
}

document.addEventListener('keydown', (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key]
  if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return
  const { ids } = list
  const next = ids[Math.min(ids.length - 1, Math.max(0, ids.indexOf(chosen ?? '') + step))]
  if (next === undefined) return
  event.preventDefault()
  choose(next)
})

const canvas = canvasOf('map')
canvas.addEventListener('mousemove', ({ offsetX, offsetY }) => {
  get('cell').textContent = map.describe(offsetX, offsetY)
})
canvas.addEventListener('mouseleave', () => (get('cell').textContent = '\u00A0'))

addEventListener('resize', soon)
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', soon)
