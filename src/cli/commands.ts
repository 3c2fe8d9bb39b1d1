import type { Command } from './command.js'
import { demo } from './demo/command.js'
import { doctor } from './doctor/command.js'
import { serve } from './serve/command.js'
import { traceCheck, traceMerge, traceShow } from './trace/commands.js'

/** Every command. The one without a name serves. */
export const commands: readonly Command[] = [serve, demo, doctor, traceShow, traceCheck, traceMerge]
