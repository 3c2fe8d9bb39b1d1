import type { PageCounts } from '#native'
import { bytes, micros, several, whole } from '../numbers.js'
import { type Account, accountOf, touchesOf } from './account.js'
import { adviceFor } from './advice.js'
import { latencyChart, touchesChart } from './charts.js'
import type { RunFacts } from './facts.js'
import { mapOf, mostCells } from './map.js'
import { type Pictured, pictureOfTouches } from './picture.js'
import { escaped } from './svg.js'
import { style } from './style.js'

/** What a report is known by. */
export const firstLine = '<!doctype html><!-- a report of uffd-rs -->'

/** A run as a page of its own: one file, without a script and without anything from elsewhere. */
export function reportPage(facts: RunFacts): string {
  const advice = adviceFor(facts)
  const sections = [map, touches, latencies, prefetch, counters]
  return `${firstLine}
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(facts.title)}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>${escaped(facts.title)}</h1>
<p class="faint">${escaped(subtitle(facts))}</p>
</header>
<main>
<p class="advice ${advice.kind}" id="advice">${escaped(advice.text)}</p>
${sections.map((section) => section(facts)).join('\n')}
</main>
</body>
</html>
`
}

function subtitle({ snapshot, pages, pageSize, recovered, end, stats }: RunFacts): string {
  const how = {
    'guest-exited': 'its process exited',
    stopped: 'it was stopped',
    'handed-over': 'it was left to another process',
    released: 'it was released, and runs without a handler',
    failed: `it failed: ${end?.message ?? 'nobody said why'}`,
  }
  return [
    `${bytes(pages * pageSize)} in pages of ${bytes(pageSize)}`,
    ...(snapshot === undefined ? [] : [snapshot]),
    ...(stats === undefined ? [] : [`served for ${micros(stats.uptimeMs * 1000)}`]),
    ...(recovered === true ? ['taken over: latencies are since then'] : []),
    ...(end === undefined ? [] : [how[end.reason]]),
  ].join(' · ')
}

const section = (id: string, title: string, inside: string) =>
  `<section id="${id}">\n<h2>${title}</h2>\n${inside}\n</section>`

/** What the states of pages mean in a guest's memory, and in a trace. */
const meanings = {
  memory: {
    unfaulted: 'never needed',
    clean: 'from the snapshot',
    zero: 'zeros',
    dirty: 'written',
    removed: 'given back',
    poisoned: 'could not be had',
  },
  touches: {
    unfaulted: 'never waited for',
    clean: 'first read, from the snapshot',
    zero: 'first read, zeros of the snapshot',
    dirty: 'first written',
    removed: 'given back before',
  },
} as const

const perCell = (count: number) => `Each square is ${several(count, 'page')}.`

function map(facts: RunFacts): string {
  const { memory, touches: trace, pages, pageSize, writesAreTracked } = facts
  if (memory !== undefined) {
    const { picture, counts, afterMs } = memory
    const when = afterMs === undefined ? 'at the end' : `after ${micros(afterMs * 1000)}`
    const untracked = ' Writes are not tracked: what was read first may have been written since.'
    const note = perCell(picture.pagesPerCell) + (writesAreTracked ? '' : untracked)
    const drawing = mapOf(picture, pageSize, `The memory ${when}, page by page`)
    const key = legend(meanings.memory, counts, pageSize)
    return section('map', `Memory ${when}`, `${key}<p>${note}</p>${drawing}`)
  }
  if (trace === undefined) return ''
  const touched = pictureOfTouches(trace, pages, mostCells)
  const drawing = mapOf(touched, pageSize, 'The pages that were touched')
  const note = `<p>${perCell(touched.pagesPerCell)}</p>`
  return section('map', 'Memory that was touched', legend(meanings.touches) + note + drawing)
}

/** The colours that are used, and how much memory each stands for. */
function legend(
  words: Partial<Record<Pictured, string>>,
  counts?: PageCounts,
  pageSize = 0,
): string {
  const entries = Object.entries(words) as [Pictured, string][]
  const items = entries.flatMap(([state, word]) => {
    if (counts?.[state] === 0) return []
    const amount = counts === undefined ? '' : ` (${bytes(counts[state] * pageSize)})`
    const swatch = `<svg viewBox="0 0 1 1" aria-hidden="true"><rect width="1" height="1" class="${state}"/></svg>`
    return [`<li>${swatch}${word}${amount}</li>`]
  })
  return `<ul class="legend">${items.join('')}</ul>`
}

function touches({ touches: trace, pages, pageSize }: RunFacts): string {
  if (trace === undefined || trace.length === 0) return ''
  const { needed, regained } = touchesOf(trace)
  const words =
    `${several(needed, 'page')} of the snapshot ${needed === 1 ? 'was' : 'were'} waited for, and ` +
    `${several(regained, 'page')} that had been given back. Time goes from left to right, the ` +
    `snapshot from its start at the top to its end.`
  return section(
    'touches',
    'First touches',
    `<p>${words}</p>${touchesChart(trace, pages, pageSize)}`,
  )
}

function latencies({ latencies: histogram, stats }: RunFacts): string {
  if (stats === undefined && histogram === undefined) return ''
  const { latency } = stats ?? {}
  const words =
    latency === undefined
      ? ''
      : `<p>${several(latency.count, 'fault')}: half of them took at most ${micros(latency.p50)}, ` +
        `99 % at most ${micros(latency.p99)}, the slowest ${micros(latency.max)}; from the moment ` +
        `a fault was read to the end of its install.</p>`
  const chart = histogram === undefined ? '' : latencyChart(histogram)
  return section('latencies', 'How long faults took', words + chart)
}

function prefetch(facts: RunFacts): string {
  const account = accountOf(facts)
  if (account === undefined) return ''
  const rows = rowsOf(account, facts.touchesArePrefetched).map(
    ([name, count, note]) => `<tr><th>${name}</th><td>${whole(count)}</td><td>${note}</td></tr>`,
  )
  return section('prefetch', 'What the trace foresaw', `<table>${rows.join('')}</table>`)
}

function rowsOf(
  { asked, ready, late, missed, forNothing, mayBeMore }: Account,
  ofThisRun: boolean,
): [string, number, string][] {
  const used = asked - forNothing
  return [
    ['pages it asked for', asked, ''],
    ofThisRun
      ? ['ready', ready, 'there before anybody waited for them']
      : ['foreseen', used, 'that the run needed'],
    ...(ofThisRun ? [['too late', late, 'a thread waited for them all the same'] as const] : []),
    ['missed', missed, 'a thread waited for them, and the trace has them not'],
    [
      'for nothing',
      forNothing,
      mayBeMore
        ? 'given back by the guest before their turn came; whether the others were used cannot be ' +
          'seen, since a page that is there raises no fault'
        : 'that the run did not need',
    ],
  ] as [string, number, string][]
}

function counters({ stats }: RunFacts): string {
  if (stats === undefined) return ''
  const { pages: _pages, latency: _latency, uptimeMs: _uptime, ...counts } = stats
  const rows = Object.entries(counts)
    .filter(([, value]) => Number(value) > 0)
    .map(([name, value]) => `<tr><th>${spaced(name)}</th><td>${whole(Number(value))}</td></tr>`)
  return section('counters', 'Counters', `<table>${rows.join('')}</table>`)
}

/** `readFaults` as `read faults` */
const spaced = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
