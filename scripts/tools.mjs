// What the scripts share. Node's own modules only: they run before anything is installed.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The repository. */
export const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))

const STAMPS = join(ROOT, 'node_modules', '.cache', 'hearsay')

/** Command lines that need no shell: [program, ...arguments]. */
export const tools = {
  npm: process.env.npm_execpath?.endsWith('.js') ? [process.execPath, process.env.npm_execpath] : ['npm'],
  napi: [process.execPath, join(ROOT, 'node_modules/@napi-rs/cli/dist/cli.js')],
  tsc: [process.execPath, join(ROOT, 'node_modules/typescript/bin/tsc')],
  ava: [process.execPath, join(ROOT, 'node_modules/ava/entrypoints/cli.mjs')],
  biome: [process.execPath, join(ROOT, 'node_modules/@biomejs/biome/bin/biome')],
  typedoc: [process.execPath, join(ROOT, 'node_modules/typedoc/bin/typedoc')],
  ts: [process.execPath, '--import=@oxc-node/core/register'],
  cargo: ['cargo'],
}

/**
 * Runs a command in the repository, or in `cwd`; `env` adds to the environment. With `collect` its output is shown on stderr and also given back, with `quiet` only given
 * back; with `toStderr` everything it prints goes to stderr, so that stdout stays the caller's.
 *
 * @param {string[]} line
 * @param {{ collect?: boolean, quiet?: boolean, toStderr?: boolean, cwd?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<{ code: number, output: string }>}
 */
export function run(line, { collect = false, quiet = false, toStderr = false, cwd = ROOT, env } = {}) {
  const [program, ...args] = line
  return new Promise((resolve) => {
    const piped = collect || quiet
    const stdout = piped ? 'pipe' : toStderr ? 2 : 'inherit'
    const child = spawn(program, args, {
      cwd,
      env: env ? { ...process.env, ...env } : process.env,
      stdio: ['ignore', stdout, piped ? 'pipe' : 'inherit'],
      // npm is a batch file on Windows.
      shell: process.platform === 'win32' && program === 'npm',
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8')
      stream?.on('data', (text) => {
        output += text
        if (collect) process.stderr.write(text)
      })
    }
    child.on('error', (error) => {
      process.stderr.write(`${program}: ${error.message}\n`)
      resolve({ code: 127, output })
    })
    child.on('close', (code) => resolve({ code: code ?? 1, output }))
  })
}

function* files(path) {
  if (!statSync(path).isDirectory()) {
    yield path
    return
  }
  for (const name of readdirSync(path).sort()) {
    if (name !== 'target' && name !== 'node_modules') yield* files(join(path, name))
  }
}

/**
 * A hash of what is in these files and folders, and of `extra`.
 *
 * @param {string[]} paths
 * @param {string} [extra]
 */
export function fingerprint(paths, extra = '') {
  const hash = createHash('sha256').update(extra)
  for (const path of paths) {
    for (const file of files(join(ROOT, path)))
      hash.update(`\0${file.slice(ROOT.length)}\0`).update(readFileSync(file))
  }
  return hash.digest('hex')
}

/**
 * Was this step done with this fingerprint?
 *
 * @param {string} step
 * @param {string} print
 */
export function isFresh(step, print) {
  const stamp = join(STAMPS, step)
  return existsSync(stamp) && readFileSync(stamp, 'utf8') === print
}

/**
 * Notes that this step was done with this fingerprint.
 *
 * @param {string} step
 * @param {string} print
 */
export function markFresh(step, print) {
  mkdirSync(STAMPS, { recursive: true })
  writeFileSync(join(STAMPS, step), print)
}
