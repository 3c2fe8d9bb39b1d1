import type { Command } from './command.js'
import { completionOf } from './completion/command.js'
import { configure } from './configure/command.js'
import { dump, status, stop } from './control/commands.js'
import { demo } from './demo/command.js'
import { doctor } from './doctor/command.js'
import { report } from './report/command.js'
import { restore } from './restore/command.js'
import { serve } from './serve/command.js'
import { traceCheck, traceMerge, traceShow } from './trace/commands.js'

/** Every command. The one without a name serves. */
export const commands: readonly Command[] = [
  serve,
  restore,
  status,
  dump,
  stop,
  configure,
  demo,
  doctor,
  report,
  traceShow,
  traceCheck,
  traceMerge,
  completionOf(() => commands),
]
