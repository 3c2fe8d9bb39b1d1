import { type BalloonConfig } from './balloon.js'
import { argument } from '../validate.js'
import { checkClient, type FirecrackerClient } from './client.js'
import type { RequestOptions } from './deadline.js'
import { requireHugePages, type MachineConfig } from './machine-config.js'
import { requireFreePages } from './reporting.js'
import { requireVersionOf } from './template-version.js'
import { checkTemplate, type Template } from './template.js'

const checked = (template: Template): Template => checkTemplate(template, argument('template'))

/** What a template says to `PUT /machine-config`. */
export function templateMachineConfig(template: Template): MachineConfig {
  const { vcpuCount, memSizeMib, hugePages, trackDirtyPages } = checked(template)
  return { vcpuCount, memSizeMib, hugePages, trackDirtyPages }
}

/** What a template says to `PUT /balloon`; nothing if it has no balloon. */
export function templateBalloon(template: Template): BalloonConfig | undefined {
  const { balloon, freePageReporting, freePageHinting } = checked(template)
  return balloon && { ...balloon, freePageReporting, freePageHinting }
}

/**
 * Configures a fresh Firecracker as the template says, before boot. If the
 * Firecracker that runs is too old for the template, nothing is sent to it.
 */
export async function applyTemplate(
  client: FirecrackerClient,
  template: Template,
  options?: RequestOptions,
): Promise<void> {
  checkClient(client, argument('client'))
  checked(template)
  const version = await client.version(options)
  requireVersionOf(template, version)
  requireFreePages(version, template)
  requireHugePages(version, template.hugePages)
  await client.putMachineConfig(templateMachineConfig(template), options)
  const balloon = templateBalloon(template)
  if (balloon !== undefined) await client.putBalloon(balloon, options)
}
