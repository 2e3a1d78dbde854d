import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import {
  BINARIES,
  causes,
  explain,
  libcOfExecutable,
  libcOfReport,
  type Platform,
  platformName,
  suffixOf,
} from '../ts/platform.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const glibc: Platform = { os: 'linux', arch: 'x64', libc: 'glibc', glibc: '2.36' }
const musl: Platform = { os: 'linux', arch: 'arm64', libc: 'musl', glibc: null }

test('the C library is read from the executable, else from the report', (t) => {
  t.is(libcOfExecutable('/usr/bin/node', '\x7fELF\0/lib64/ld-linux-x86-64.so.2\0'), 'glibc')
  t.is(libcOfExecutable('/usr/bin/node', '\x7fELF\0/lib/ld-musl-x86_64.so.1\0'), 'musl')
  // Started through its loader by hand, the process is the loader.
  t.is(libcOfExecutable('/opt/musl/ld-musl-aarch64.so.1', '\x7fELF'), 'musl')
  t.is(libcOfExecutable('/usr/bin/node', '\x7fELF'), null)
  t.is(libcOfReport({ header: { glibcVersionRuntime: '2.36' } }), 'glibc')
  t.is(libcOfReport({ header: {}, sharedObjects: ['/lib/ld-musl-x86_64.so.1'] }), 'musl')
  t.is(libcOfReport({}), null)
})

test('every binary of package.json has its suffix here', (t) => {
  const { napi } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  t.is(napi.targets.length, BINARIES.length)
  const loader = readFileSync(join(root, 'native/hearsay.cjs'), 'utf8')
  for (const suffix of BINARIES) t.true(loader.includes(`require('hearsay-${suffix}')`), suffix)
  t.is(suffixOf(glibc), 'linux-x64-gnu')
  t.is(suffixOf(musl), 'linux-arm64-musl')
  t.is(suffixOf({ ...musl, os: 'darwin', libc: null }), 'darwin-arm64')
  t.is(suffixOf({ ...glibc, os: 'win32', libc: null }), 'win32-x64-msvc')
  t.is(platformName(glibc), 'linux-x64 (glibc 2.36)')
  t.is(platformName(musl), 'linux-arm64 (musl)')
})

test('a failure names the platform, the package and the chain of causes', (t) => {
  const chain = new Error('Cannot find native binding.', {
    cause: new Error("Cannot find module 'hearsay-linux-x64-gnu'\nRequire stack:", {
      cause: new Error("Cannot find module './hearsay.linux-x64-gnu.node'"),
    }),
  })
  t.deepEqual(causes(chain), [
    "Cannot find module './hearsay.linux-x64-gnu.node'",
    "Cannot find module 'hearsay-linux-x64-gnu'",
    'Cannot find native binding.',
  ])
  const absent = new Error("Cannot find module 'hearsay-linux-x64-gnu'")
  t.regex(
    explain(glibc, absent),
    /linux-x64 \(glibc 2\.36\): the package hearsay-linux-x64-gnu is not installed/,
  )
  const old = new Error("libc.so.6: version `GLIBC_2.28' not found")
  t.regex(explain(glibc, old), /hearsay-linux-x64-gnu is there but does not load \(tried: .*GLIBC_2\.28/)
  t.regex(explain({ ...glibc, arch: 's390x' }, absent), /no binary for it, only for linux-x64-gnu/)
})

/** The package without a binary, in a folder of its own. */
function installed(t: ExecutionContext): { folder: string; hearsay: string } {
  const folder = mkdtempSync(join(tmpdir(), 'hearsay-native-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const hearsay = join(folder, 'node_modules/hearsay')
  mkdirSync(join(hearsay, 'native'), { recursive: true })
  cpSync(join(root, 'dist'), join(hearsay, 'dist'), { recursive: true })
  cpSync(join(root, 'package.json'), join(hearsay, 'package.json'))
  cpSync(join(root, 'native/hearsay.cjs'), join(hearsay, 'native/hearsay.cjs'))
  return { folder, hearsay }
}

async function failure(folder: string): Promise<{ code: string; message: string; depth: number }> {
  const script = `import { Cluster } from 'hearsay'
    const e = await Cluster.start().catch((e) => e)
    let depth = 0
    for (let at = e.cause; at; at = at.cause) depth++
    console.log(JSON.stringify({ code: e.code, message: e.message, depth }))`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', script], {
    cwd: folder,
  })
  return JSON.parse(stdout)
}

test('without a binary the package says which one is missing', async (t) => {
  const { folder } = installed(t)
  const { code, message, depth } = await failure(folder)
  t.is(code, 'ERR_HEARSAY_ADDON')
  t.regex(message, /the package hearsay-\S+ is not installed/)
  t.true(message.includes(`${process.platform}-${process.arch}`))
  t.true(depth >= 2)
})

test('a binary that does not load is told from one that is missing', async (t) => {
  const { folder, hearsay } = installed(t)
  for (const suffix of BINARIES)
    writeFileSync(join(hearsay, `native/hearsay.${suffix}.node`), 'not a library')
  const { code, message } = await failure(folder)
  t.is(code, 'ERR_HEARSAY_ADDON')
  t.regex(message, /the binary hearsay-\S+ is there but does not load/)
})

test('a binary of another version is refused', async (t) => {
  const { folder, hearsay } = installed(t)
  for (const name of readdirSync(join(root, 'native'))) {
    if (name.endsWith('.node')) cpSync(join(root, 'native', name), join(hearsay, 'native', name))
  }
  const manifest = JSON.parse(readFileSync(join(hearsay, 'package.json'), 'utf8'))
  writeFileSync(join(hearsay, 'package.json'), JSON.stringify({ ...manifest, version: '99.0.0' }))
  const { code, message } = await failure(folder)
  t.is(code, 'ERR_HEARSAY_ADDON')
  t.is(message, `the native addon is version ${manifest.version}, hearsay is 99.0.0; reinstall`)
})

test('the committed loader and types are those of the built addon', (t) => {
  const addon = createRequire(import.meta.url)('../native/hearsay.cjs') as Record<string, unknown>
  const loader = readFileSync(join(root, 'native/hearsay.cjs'), 'utf8')
  const types = readFileSync(join(root, 'native/hearsay.d.cts'), 'utf8').replace(/\/\*\*[\s\S]*?\*\//g, '')
  const sorted = (names: Iterable<string>): string[] => [...new Set(names)].sort()
  const own = (name: string): boolean => name !== '__napiBindingTarget'

  const exported = sorted(Object.keys(addon).filter(own))
  const listed = [...loader.matchAll(/^module\.exports\.(\w+) = nativeBinding/gm)].map(
    (found) => found[1] ?? '',
  )
  t.deepEqual(sorted(listed), exported)
  const declared = types.matchAll(/^export declare (?:class|function|const) (\w+)/gm)
  t.deepEqual(sorted([...declared].map((found) => found[1] ?? '').filter(own)), exported)

  for (const [, name = '', body = ''] of types.matchAll(/^export declare class (\w+) \{([\s\S]*?)^\}/gm)) {
    const built = addon[name] as { prototype: object }
    const members = (of: object, without: string[]): string[] =>
      Object.getOwnPropertyNames(of).filter((member) => !without.includes(member))
    const there = [
      ...members(built.prototype, ['constructor']),
      ...members(built, ['length', 'name', 'prototype', 'arguments', 'caller']),
    ]
    const said = [...body.matchAll(/^ {2}(?:static |get |set )?(\w+)\(/gm)].map((found) => found[1] ?? '')
    t.deepEqual(sorted(said.filter((member) => member !== 'constructor')), sorted(there), name)
  }
})
