// Finds the native part: built here, or in the package of this platform.
'use strict'

const { existsSync } = require('node:fs')
const { join } = require('node:path')

/** glibc names itself in Node's own report; musl does not. */
function libc() {
  const { report } = process
  const { excludeNetwork } = report
  // Or the report would ask for the names of all peers, and wait for the answers.
  report.excludeNetwork = true
  const { glibcVersionRuntime } = report.getReport().header
  report.excludeNetwork = excludeNetwork
  return glibcVersionRuntime === undefined ? 'musl' : 'gnu'
}

function load() {
  const { platform, arch } = process
  if (platform !== 'linux') {
    throw unsupported(
      `uffd-rs needs Linux: it serves page faults through userfaultfd, which ${platform} does ` +
        'not have. Run it in a Linux machine or VM',
    )
  }
  if (arch !== 'x64' && arch !== 'arm64') {
    throw unsupported(`uffd-rs has no native part for linux-${arch}: only for x64 and arm64`)
  }
  const name = `linux-${arch}-${libc()}`
  const built = join(__dirname, `uffd-rs.${name}.node`)
  if (existsSync(built)) return require(built)
  try {
    return require(`uffd-rs-${name}`)
  } catch (cause) {
    if (cause.code !== 'MODULE_NOT_FOUND') throw cause
    throw unsupported(
      `The native part of uffd-rs, the package uffd-rs-${name}, is not installed. Install ` +
        'without --omit=optional, on the platform it is to run on; in a checkout of the sources, ' +
        'run npm run build:native',
      { cause },
    )
  }
}

function unsupported(message, options) {
  return Object.assign(new Error(message, options), { code: 'ERR_UFFD_PLATFORM' })
}

module.exports = load()
