import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'
import { publint } from 'publint'

interface Packed {
  app: string
  installed: string[]
  strangers: string[]
  real: string[]
  tarballs: { name: string; file: string; unpackedSize: number; files: string[] }[]
  examples: { name: string; ok: boolean }[]
}

const exec = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'hearsay-package-'))
const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
let packed: Packed

test.before(async () => {
  const script = join(root, 'scripts/packed.mjs')
  const ended = await exec(process.execPath, [script, '--into', folder], { timeout: 110_000 }).catch(
    (failed) => failed,
  )
  if (!ended.stdout) throw ended
  packed = JSON.parse(ended.stdout)
})
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

test('npm install brings the library and one binary, and asks for nothing else', (t) => {
  t.is(packed.installed.length, 2, packed.installed.join())
  const [library, binary = ''] = packed.installed
  t.is(library, 'hearsay')
  t.true(packed.real.includes(binary.replace('hearsay-', '')), binary)
  t.deepEqual(packed.strangers, [])
})

test('the example of the README runs from there: as ESM, as CommonJS, in a worker', (t) => {
  t.deepEqual(
    packed.examples.map(({ name }) => name),
    ['example.mjs', 'example.cjs', 'worker.mjs'],
  )
  for (const example of packed.examples) t.true(example.ok, JSON.stringify(example))
})

test('no install script, no dependency, no optional dependency before a release', (t) => {
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) {
    t.false(name in manifest.scripts, name)
  }
  t.false('dependencies' in manifest)
  t.false('optionalDependencies' in manifest)
})

test('what is packed is small and has no sources, tests or stray binaries', (t) => {
  const [library, binary] = packed.tarballs
  const wanted =
    /^(package\.json|README\.md|CHANGELOG\.md|LICENSE-(MIT|APACHE)|native\/hearsay\.d?\.?cts|native\/hearsay\.cjs|dist\/[\w/-]+\.(js|d\.ts|html))$/
  for (const file of library?.files ?? []) t.regex(file, wanted)
  t.is(binary?.files.filter((file) => file.endsWith('.node')).length, 1)
  t.log(packed.tarballs.map(({ name, unpackedSize }) => `${name} ${unpackedSize} B`).join(', '))
  // The binary's own limit is a release's gate (`scripts/release.mjs pack`): here it may be unoptimised.
  t.true((library?.unpackedSize ?? 0) < 500_000, `${library?.unpackedSize} bytes of library`)
})

test('publint has nothing to say', async (t) => {
  const tarball = readFileSync(packed.tarballs[0]?.file ?? '')
  const bytes = tarball.buffer.slice(tarball.byteOffset, tarball.byteOffset + tarball.byteLength)
  const { messages } = await publint({ pack: { tarball: bytes as ArrayBuffer }, strict: true })
  t.deepEqual(messages, [])
})

test('its types are right for every resolution of an ESM-only package', async (t) => {
  const cli = createRequire(import.meta.url).resolve('@arethetypeswrong/cli/package.json')
  const { bin } = JSON.parse(readFileSync(cli, 'utf8'))
  const line = [
    join(cli, '..', bin.attw),
    packed.tarballs[0]?.file ?? '',
    '--profile',
    'esm-only',
    '--format',
    'json',
  ]
  const { stdout } = await exec(process.execPath, line, { maxBuffer: 1 << 26 })
  const { analysis } = JSON.parse(stdout)
  t.false(analysis.types === false)
  // Node 10 knows no exports, and a CommonJS file gets an ES module, which these Node.js can require.
  const allowed = ['NoResolution', 'CJSResolvesToESM']
  const wrong = analysis.problems.filter((problem: { kind: string }) => !allowed.includes(problem.kind))
  t.deepEqual(wrong, [])
})

const consumers = {
  'esm.mts': `import { Cluster, type Member } from 'hearsay'
import { createTestCluster } from 'hearsay/testing'
export const names = async (): Promise<string[]> => (await Cluster.start()).members().map((m: Member) => m.name)
export const five = () => createTestCluster(5)
`,
  'commonjs.cts': `import hearsay = require('hearsay')
export const start = (): Promise<hearsay.Cluster> => hearsay.Cluster.start({ name: 'a' })
// @ts-expect-error a name is a string
export const wrong = (): Promise<hearsay.Cluster> => hearsay.Cluster.start({ name: 1 })
`,
  'deep.mts': `// @ts-expect-error no deep paths
import 'hearsay/dist/cluster.js'
`,
}

for (const module of ['nodenext', 'preserve']) {
  test(`its declarations compile in a user's project: module ${module}`, async (t) => {
    for (const [name, text] of Object.entries(consumers)) writeFileSync(join(packed.app, name), text)
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    const types = ['--types', 'node', '--typeRoots', join(root, 'node_modules/@types')]
    const line = ['--noEmit', '--strict', '--exactOptionalPropertyTypes', '--target', 'es2023', ...types]
    const lib = ['--lib', 'es2023,esnext.disposable', '--module', module, '--skipLibCheck', 'false']
    const files = Object.keys(consumers).filter((name) => module !== 'preserve' || name.endsWith('.mts'))
    const ended = await exec(process.execPath, [tsc, ...line, ...lib, ...files], { cwd: packed.app }).catch(
      (failed) => failed,
    )
    t.is(ended.stdout, '')
  })
}
