// `npm run prebuild [-- SUFFIX...] [--no-build]`: builds the binary of every platform that this machine can, checks what each file
// is, and runs a smoke that joins two members and reads a disk again where something here can run it. One line per target; what
// cannot be done is said to be skipped and why. The files are left in .cache/prebuild/out. The last line is `N passed, N failed,
// N skipped`.
//
// Builds for other platforms are made on an x64 Linux, with zig as the linker. Nothing of this is needed by `npm test`.
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { parseArgs } from 'node:util'
import { describe, faultsOf, inspect } from './prebuild/inspect.mjs'
import { CACHE, libnode, Missing, runner, rust, zig } from './prebuild/kit.mjs'
import { TARGETS } from './prebuild/targets.mjs'
import { setup } from './setup.mjs'
import { ROOT, run } from './tools.mjs'

const OUT = join(CACHE, 'out')
const TARGET_DIR = join(ROOT, 'target', 'prebuild')
const SMOKE_MS = 300_000

const { values, positionals } = parseArgs({
  options: { build: { type: 'boolean', default: true } },
  allowPositionals: true,
  allowNegative: true,
})

/** Builds one target; the path of its library. */
async function build({ triple, stand = triple, glibc }) {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new Missing('builds are made on an x64 Linux')
  const { program, folder } = await zig()
  await rust(stand)
  const windows = stand.includes('windows')
  const extra = {
    RUSTC_BOOTSTRAP: '1',
    PATH: [join(folder, 'bin'), process.env.PATH].join(delimiter),
    PYTHONPATH: folder,
    CARGO_TARGET_DIR: TARGET_DIR,
    MACOSX_DEPLOYMENT_TARGET: '13.0',
    ...(stand.includes('musl') ? { RUSTFLAGS: '-C target-feature=-crt-static' } : {}),
    ...(windows ? { LIBNODE_PATH: await libnode() } : {}),
  }
  const wanted = glibc === undefined ? stand : `${stand}.${glibc}`
  const what = ['--profile', 'addon', '--config', 'crates/addon/shipped.toml', '-p', 'hearsay-addon']
  const line = [program, 'zigbuild', '--locked', ...what, '--target', wanted]
  const { code, output } = await run(line, { quiet: true, env: extra })
  if (code !== 0) throw new Error(`the build failed:\n${output}`)
  const name = windows ? 'hearsay.dll' : stand.includes('darwin') ? 'libhearsay.dylib' : 'libhearsay.so'
  return join(TARGET_DIR, stand, 'addon', name)
}

const SMOKE = `import { statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Cluster } from 'hearsay'
const began = performance.now()
const a = await Cluster.start({ name: 'a' })
const b = await Cluster.start({ name: 'b', seeds: [a.self.address], joinTimeoutMs: 60000 })
await a.waitFor({ members: 2, timeoutMs: 60000 })
await b.waitFor({ members: 2, timeoutMs: 60000 })
b.state.set('key', { on: true })
for (let turn = 0; a.state.get('key') === undefined; turn++) {
  if (turn === 3000) throw new Error('the key did not come')
  await new Promise((resolve) => setTimeout(resolve, 20))
}
const { on } = a.state.get('key')
// Through the disk, and over the size at which the file is rewritten.
const storage = { path: join(dirname(process.argv[2]), 'store') }
const c = await Cluster.start({ name: 'c', storage })
for (let turn = 0; turn < 40; turn++) {
  c.state.set('long', String(turn).padEnd(60000))
  await c.state.flush({ timeoutMs: 60000 })
}
await c.stop()
const again = await Cluster.start({ name: 'c', storage })
const kept = again.state.get('long')
if (kept?.trim() !== '39') throw new Error('the disk holds ' + kept?.trim())
await again.stop()
const bytes = statSync(join(storage.path, 'hearsay.log')).size
if (bytes > 1800000) throw new Error('the file was not rewritten: ' + bytes)
await b.leave()
await a.stop()
const { platform, arch, version } = process
writeFileSync(process.argv[2], JSON.stringify({ on, platform, arch, version, ms: Math.round(performance.now() - began) }))
`

/** Installs a binary beside the library and runs the smoke with a Node.js of its platform; what that said. */
async function smoke({ suffix, run: how }, file) {
  const started = await runner(how)
  const app = join(started.tree === undefined ? CACHE : join(started.tree, 'tmp'), `app-${suffix}`)
  rmSync(app, { recursive: true, force: true })
  const [library, platform] = ['hearsay', `hearsay-${suffix}`].map((name) => join(app, 'node_modules', name))
  mkdirSync(join(library, 'native'), { recursive: true })
  mkdirSync(platform, { recursive: true })
  for (const part of ['dist', 'package.json', 'native/hearsay.cjs']) {
    cpSync(join(ROOT, part), join(library, part), { recursive: true })
  }
  cpSync(file, join(platform, `hearsay.${suffix}.node`))
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const manifest = { name: `hearsay-${suffix}`, version, main: `hearsay.${suffix}.node` }
  writeFileSync(join(platform, 'package.json'), JSON.stringify(manifest))
  // A package of its own: below the repository the name hearsay would mean the repository.
  writeFileSync(join(app, 'package.json'), '{"private":true}')
  writeFileSync(join(app, 'smoke.mjs'), SMOKE)
  const said = join(app, 'said.json')
  const limit = ['timeout', '--kill-after=5', String(SMOKE_MS / 1000)]
  const line =
    started.tree === undefined
      ? [...limit, ...started, join(app, 'smoke.mjs'), said]
      : [...limit, ...inWine(started, `/tmp/app-${suffix}`)]
  const { code, output } = await run(line, { quiet: true, cwd: app })
  // Standard output is none under wine, so the result is a file everywhere.
  if (!existsSync(said)) throw new Error(`the smoke failed with code ${code}:\n${output.slice(-2000)}`)
  return JSON.parse(readFileSync(said, 'utf8'))
}

/**
 * A process tree of its own in which wine runs the smoke, so that nothing of it stays behind. Windows' Node.js cannot open a pipe of
 * the system it is on as its standard output or error, so both go to a file; the registry is made anew, because the end of the tree
 * leaves a half-written one.
 */
function inWine({ tree, node }, app) {
  const script = `mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev" && mkdir -p "$1/node" && mount --bind "$2" "$1/node" &&
    mount -t tmpfs tmpfs "$1/root" || exit
    chroot "$1" env HOME=/root WINEDEBUG=-all WINEDLLOVERRIDES=mscoree,mshtml= PATH=/usr/bin:/bin \\
    wine /node/node.exe "Z:$3/smoke.mjs" "Z:$3/said.json" >"$1$3/log" 2>&1
    code=$?; cat "$1$3/log"; exit $code`
  return ['unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', script, 'sh', tree, node, app]
}

let [passed, failed, skipped] = [0, 0, 0]
const say = (mark, suffix, text) => console.log(`${mark} ${suffix.padEnd(17)} ${text}`)

if (values.build) await setup()
mkdirSync(OUT, { recursive: true })
for (const target of TARGETS) {
  const { suffix, skip, stand } = target
  if (positionals.length > 0 && !positionals.includes(suffix)) continue
  const file = join(OUT, `hearsay.${suffix}.node`)
  try {
    if (skip !== undefined) throw new Missing(skip)
    if (values.build) cpSync(await build(target), file)
    if (!existsSync(file)) throw new Missing('not built yet')
    const bytes = readFileSync(file)
    const what =
      describe(bytes) + (stand === undefined ? '' : ` (${stand}, to try; the shipped one is built by ci)`)
    const wrong = faultsOf(inspect(bytes), target)
    if (wrong.length > 0) throw new Error(`${what}: ${wrong.join('; ')}`)
    let ran = 'linked only'
    if (target.run !== undefined) {
      try {
        const { version, platform, arch, ms } = await smoke(target, file)
        ran = `two members joined and one came back from its disk on Node ${version} ${platform} ${arch} (${target.run}) in ${ms} ms`
      } catch (error) {
        if (!(error instanceof Missing)) throw new Error(`${what}: ${error.message}`)
        ran = `not run: ${error.message}`
      }
    }
    passed++
    say('ok  ', suffix, `${what}; ${ran}`)
  } catch (error) {
    if (error instanceof Missing) {
      skipped++
      say('skip', suffix, error.message)
    } else {
      failed++
      say('FAIL', suffix, error.message)
    }
  }
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
process.exitCode = failed === 0 ? 0 : 1
