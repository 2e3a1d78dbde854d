import { closeSync, openSync, readSync } from 'node:fs'
import { createRequire } from 'node:module'
import type * as Binding from '../native/hearsay.cjs'
import { HearsayError } from './errors.js'
import {
  explain,
  type Libc,
  type LibcReport,
  libcOfExecutable,
  libcOfReport,
  type Platform,
} from './platform.js'

export type {
  NativeCluster,
  NativeMerkle,
  NativePhi,
  NativeRing,
  NativeSimulation,
  PhiSettings,
  RingEntry,
  RingTable,
  SimulationSettings,
  StartOptions,
} from '../native/hearsay.cjs'

const require = createRequire(import.meta.url)
let loaded: typeof Binding | undefined

/** The native addon, loaded at the first call. */
export function binding(): typeof Binding {
  loaded ??= load()
  return loaded
}

function load(): typeof Binding {
  const { version } = require('../package.json') as { version: string }
  const libc = process.platform === 'linux' ? executableLibc() : null
  let addon: typeof Binding
  try {
    addon = (libc === 'musl' ? loadMusl() : undefined) ?? (require('../native/hearsay.cjs') as typeof Binding)
  } catch (cause) {
    throw new HearsayError('ERR_HEARSAY_ADDON', explain(platform(libc), cause), { cause })
  }
  const found = addon.nativeVersion()
  if (found !== version) {
    throw new HearsayError(
      'ERR_HEARSAY_ADDON',
      `the native addon is version ${found}, hearsay is ${version}; reinstall`,
    )
  }
  return addon
}

/**
 * The addon for musl, if it is there. The generated loader asks the system which C library it has; a Node.js linked against musl
 * on a system of glibc needs the other answer.
 */
function loadMusl(): typeof Binding | undefined {
  if (process.env.NAPI_RS_NATIVE_LIBRARY_PATH) return undefined
  const suffix = `linux-${process.arch}-musl`
  for (const name of [`../native/hearsay.${suffix}.node`, `hearsay-${suffix}`]) {
    try {
      require.resolve(name)
    } catch {
      continue
    }
    return require(name) as typeof Binding
  }
  return undefined
}

/** The C library this Node.js runs on, null if that cannot be told. */
function executableLibc(): Libc | null {
  const head = Buffer.alloc(4096)
  let length = 0
  try {
    const file = openSync(process.execPath, 'r')
    try {
      length = readSync(file, head, 0, head.length, 0)
    } finally {
      closeSync(file)
    }
  } catch {
    // Not readable: the report may tell.
  }
  const libc = libcOfExecutable(process.execPath, head.toString('latin1', 0, length))
  return libc ?? libcOfReport(report())
}

function report(): LibcReport {
  // With the network the report looks up the name of every socket's peer.
  const report = process.report as typeof process.report & { excludeNetwork?: boolean }
  const before = report.excludeNetwork
  report.excludeNetwork = true
  try {
    return report.getReport() as LibcReport
  } finally {
    report.excludeNetwork = before ?? false
  }
}

function platform(libc: Libc | null): Platform {
  const glibc = libc === 'glibc' ? (report().header?.glibcVersionRuntime ?? null) : null
  return { os: process.platform, arch: process.arch, libc, glibc }
}
