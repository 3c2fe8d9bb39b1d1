import { string } from '../validate.js'
import { field, fromWire, type Fields } from './wire.js'

/** What `GET /` tells. */
export interface InstanceInfo {
  /** The name of the program: `Firecracker`. */
  readonly appName: string
  /** The microVM's id, as given to Firecracker with `--id`. */
  readonly id: string
  /** What the microVM does now. */
  readonly state: 'Not started' | 'Running' | 'Paused' | (string & {})
  /** The version, as Firecracker writes it. */
  readonly vmmVersion: string
}

const fields: Fields<InstanceInfo> = {
  appName: field('app_name', string),
  id: field('id', string),
  state: field('state', string),
  vmmVersion: field('vmm_version', string),
}

export const readInstanceInfo: (body: unknown) => InstanceInfo = fromWire(fields)

const versionFields: Fields<{ version: string }> = {
  version: field('firecracker_version', string),
}

export const readVersion: (body: unknown) => { version: string } = fromWire(versionFields)
