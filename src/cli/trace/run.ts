import { Trace } from '../../index.js'
import { exitStatus } from '../exit-status.js'
import { bytes, micros, several, whole } from '../../numbers.js'
import { pictureOfTouches } from '../../report/picture.js'
import { mostTerminalCells, terminalMap } from '../../report/terminal.js'
import { checkSaveTo } from './check-save.js'

const print = (text: string) => void process.stdout.write(`${text}\n`)

export async function show(
  file: string,
  { json, map }: { json: boolean; map: boolean },
): Promise<number> {
  const trace = await Trace.load(file)
  if (json) print(trace.toText().trimEnd())
  else print([file, description(trace), ...(map ? ['', ...mapOf(trace)] : [])].join('\n'))
  return exitStatus.ok
}

export async function check(file: string, snapshot: string | undefined): Promise<number> {
  const trace = await Trace.load(file, { snapshot })
  const whose = snapshot === undefined ? '' : ` and belongs to ${snapshot}`
  print(`${file} is whole${whose}: ${several(trace.summary.pages, 'page')}`)
  return exitStatus.ok
}

export async function merge(
  files: readonly string[],
  into: string,
  how: 'union' | 'intersection',
): Promise<number> {
  await checkSaveTo(into)
  const traces: Trace[] = []
  for (const file of files) traces.push(await Trace.load(file))
  const merged = traces[0]!.merge(how, traces.slice(1))
  await merged.save(into)
  print(`${into}: ${several(merged.summary.pages, 'page')} of ${several(files.length, 'trace')}`)
  return exitStatus.ok
}

/** Which parts of the snapshot were touched. */
function mapOf(trace: Trace): string[] {
  const pages = Math.ceil(Number(trace.snapshot.length) / trace.pageSize)
  return terminalMap(pictureOfTouches(trace, pages, mostTerminalCells), trace.pageSize)
}

function description({ summary, snapshot, pageSize, createdBy }: Trace): string {
  const { pages, writes, replayed, spanMicros } = summary
  const rows = {
    pages: `${whole(pages)} (${bytes(Number(summary.bytes))}), ${whole(writes)} first written`,
    replayed: several(replayed, 'page'),
    time: `${micros(spanMicros)} from the first touch to the last`,
    snapshot: `${bytes(Number(snapshot.length))} in pages of ${bytes(pageSize)}`,
    fingerprint: snapshot.fingerprint,
    'made by': createdBy,
  }
  return Object.entries(rows)
    .map(([name, text]) => `  ${name.padEnd(12)}${text}`)
    .join('\n')
}
