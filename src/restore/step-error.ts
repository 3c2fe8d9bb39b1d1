import { UffdError, type UffdErrorCode } from '../errors.js'
import { type Failure } from './steps.js'

/** How the failure of an attempt of several steps is told. */
export interface Telling<Step extends string, Vm extends string> {
  /** What was attempted, up to the path of the API socket. */
  readonly attempt: string
  /** Each step's code, and what was going on then. */
  readonly steps: Readonly<Record<Step, readonly [code: UffdErrorCode, doing: string]>>
  /** The code where the caller's signal fired. */
  readonly aborted: UffdErrorCode
  /** What is left, in a sentence. */
  readonly left: Readonly<Record<Vm, string>>
}

/** One step of several failed, and what it left behind is known. */
export abstract class StepError<Step extends string, Vm extends string> extends UffdError {
  /** The step that failed. */
  readonly step: Step
  /** What is left of the microVM. */
  readonly vm: Vm

  /** @internal */
  constructor(telling: Telling<Step, Vm>, failure: Failure<Step>, apiSocket: string, vm: Vm) {
    const { step, cause, aborted } = failure
    const [code, doing] = telling.steps[step]
    const how = aborted ? 'was aborted by its signal' : 'failed'
    super(
      aborted ? telling.aborted : code,
      `${telling.attempt} ${apiSocket} ${how} while ${doing}: ${inWords(cause)}. ${telling.left[vm]}`,
      { cause },
    )
    this.step = step
    this.vm = vm
  }
}

/** A cause as part of a sentence. */
function inWords(cause: unknown): string {
  return (cause instanceof Error ? cause.message : String(cause)).replace(/\.$/, '')
}
