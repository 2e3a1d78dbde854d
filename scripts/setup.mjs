// Makes a clone ready: locked install, addon, compiled TypeScript. Does only what is missing or out of date; everything it says
// goes to stderr. `--build` is the same by hand; `--dev` builds the addon quickly and unoptimised.
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { fingerprint, isFresh, markFresh, ROOT, run, tools } from './tools.mjs'

const say = (text) => process.stderr.write(`hearsay: ${text}\n`)

async function step(name, text, print, isThere, work) {
  if (isThere && isFresh(name, print())) return
  say(text)
  const began = performance.now()
  for (const line of work) {
    const { code } = await run(line, { toStderr: true })
    if (code !== 0) throw new Error(`${line.slice(0, 3).join(' ')} failed with code ${code}`)
  }
  // Taken anew: the addon's step writes the loader and its types, which are part of its print.
  markFresh(name, print())
  say(`done in ${((performance.now() - began) / 1000).toFixed(1)} s`)
}

const hasAddon = () => readdirSync(join(ROOT, 'native')).some((name) => name.endsWith('.node'))

/**
 * Installs, builds and compiles what is missing or out of date.
 *
 * @param {{ dev?: boolean }} [options]
 */
export async function setup({ dev = process.env.HEARSAY_DEV === '1' } = {}) {
  const installed = () => fingerprint(['package-lock.json'], process.version)
  await step(
    'install',
    'installing the locked npm packages',
    installed,
    existsSync(join(ROOT, 'node_modules/.package-lock.json')),
    [[...tools.npm, 'ci', '--no-audit', '--no-fund']],
  )
  const crates = [
    'crates/proto/src',
    'crates/runtime',
    'crates/sim/src',
    'crates/addon',
    'Cargo.toml',
    'Cargo.lock',
  ]
  const generated = ['native/hearsay.cjs', 'native/hearsay.d.cts']
  // The profile that is shipped, so that tests and benches try what users get.
  const profile = dev ? 'dev' : 'addon'
  const build = [...tools.napi, 'build', '--platform', ...(dev ? [] : ['--profile', profile])]
  const where = [
    '--manifest-path',
    'crates/addon/Cargo.toml',
    '-o',
    'native',
    '--js',
    'hearsay.cjs',
    '--dts',
    'hearsay.d.cts',
  ]
  const minutes = dev ? 'a minute' : 'a few minutes the first time'
  const platform = `${process.platform}-${process.arch}`
  await step(
    'addon',
    `building the native addon (${profile}; takes ${minutes})`,
    () => fingerprint([...crates, ...generated], `${profile} ${platform}`),
    hasAddon() && generated.every((file) => existsSync(join(ROOT, file))),
    [[...build, ...where, '--', '--locked']],
  )
  await step(
    'dist',
    'compiling TypeScript',
    () =>
      fingerprint([
        'ts',
        'tsconfig.json',
        'scripts/compile.mjs',
        'native/hearsay.d.cts',
        'package-lock.json',
      ]),
    existsSync(join(ROOT, 'dist/index.js')),
    [[process.execPath, 'scripts/compile.mjs']],
  )
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  try {
    await setup({ dev: process.argv.includes('--dev') || process.env.HEARSAY_DEV === '1' })
    say('ready')
  } catch (error) {
    say(error.message)
    process.exitCode = 1
  }
}
