import { resolve } from 'node:path'
import { type FreePageChoice, requireFreePages } from '../firecracker/reporting.js'
import { snapshotLoadBody, type SnapshotLoad } from '../firecracker/snapshot.js'
import { readTemplate } from '../firecracker/template-file.js'
import { requireVersionOf } from '../firecracker/template-version.js'
import { type Template } from '../firecracker/template.js'
import { type FirecrackerVersion } from '../firecracker/version.js'
import { type Checked, filePath, localFile, options as place, type Place } from '../validate.js'
import { type RestoreOptions } from './options.js'

/** What a restore is to lead to: the options and the template as one. */
export interface Wanted {
  /** The guest's memory file. */
  readonly snapshot: string
  readonly load: SnapshotLoad
  /** What was decided before boot, as far as anybody said. */
  readonly freePages: FreePageChoice
  readonly template: Template | undefined
}

export async function whatIsWanted(
  options: Checked<RestoreOptions>,
  backendPath: string,
): Promise<Wanted> {
  const template =
    typeof options.template === 'string' ? await readTemplate(options.template) : options.template
  const { networkOverrides, vsockOverride, hugePages, clockRealtime, resume = true } = options
  const at = place()
  const snapshotState = filePath(
    options.snapshotState ?? template?.snapshot?.statePath,
    at.field('snapshotState'),
  )
  return {
    snapshot: localFile(options.snapshot ?? template?.snapshot?.memoryPath, at.field('snapshot')),
    load: {
      snapshotPath: resolve(snapshotState),
      backendPath,
      resumeVm: resume === 'at-load',
      trackDirtyPages: options.trackDirtyPages ?? template?.trackDirtyPages ?? false,
      networkOverrides,
      vsockOverride,
      hugePages,
      clockRealtime,
    },
    freePages: {
      freePageReporting: agreed('freePageReporting', options, template, at),
      freePageHinting: agreed('freePageHinting', options, template, at),
    },
    template,
  }
}

/** Refuses what this version cannot do, before anything is started. */
export function requireWanted(version: FirecrackerVersion, wanted: Wanted): void {
  const { freePages, load, template } = wanted
  if (template !== undefined) requireVersionOf(template, version)
  requireFreePages(version, freePages)
  snapshotLoadBody(version, load)
}

function agreed(
  name: keyof FreePageChoice,
  options: Checked<RestoreOptions>,
  template: Template | undefined,
  at: Place,
): boolean | undefined {
  const [own, its] = [options[name], template?.[name]]
  if (own === undefined || its === undefined || own === its) return own ?? its
  const how = `${its}, as in the template: it was decided before the snapshot was made`
  return at.field(name).expected(how, own)
}
