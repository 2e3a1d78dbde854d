import { createRequire } from 'node:module'
import type * as Binding from '../native/hearsay.cjs'
import { HearsayError } from './errors.js'

export type {
  NativeCluster,
  NativeMerkle,
  NativePhi,
  NativeSimulation,
  PhiSettings,
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
  let addon: typeof Binding
  try {
    addon = require('../native/hearsay.cjs') as typeof Binding
  } catch (cause) {
    const platform = `${process.platform}-${process.arch}`
    throw new HearsayError(
      'ERR_HEARSAY_ADDON',
      `the native addon for ${platform} cannot be loaded; in a clone run "npm run setup", else reinstall hearsay`,
      { cause },
    )
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
