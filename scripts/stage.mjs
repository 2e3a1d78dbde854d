// Lays out what a release publishes, in a folder outside the tree: the library with its optional dependencies written, and one
// package per platform. Binaries that are not here are stood in for by a line of text, which no smoke test would survive.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, run, tools } from './tools.mjs'

const LICENCES = ['LICENSE-MIT', 'LICENSE-APACHE']
const FILES = ['package.json', 'README.md', 'CHANGELOG.md', 'dist', ...LICENCES]
const LOADER = ['hearsay.cjs', 'hearsay.d.cts']

const read = (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
const write = (folder, manifest) =>
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)

async function must(line, options) {
  const { code, output } = await run(line, { quiet: true, ...options })
  if (code !== 0) throw new Error(`${line.slice(0, 3).join(' ')} failed:\n${output}`)
  return output
}

/**
 * Writes the packages below `folder`: the library in `folder/hearsay`, the platforms in `folder/hearsay/npm/*`.
 *
 * @param {string} folder
 * @param {string} binaries where the `.node` files are
 * @returns {Promise<{ root: string, platforms: { suffix: string, folder: string, real: boolean }[] }>}
 */
export async function stage(folder, binaries = join(ROOT, 'native')) {
  const root = join(folder, 'hearsay')
  mkdirSync(join(root, 'native'), { recursive: true })
  for (const name of FILES) cpSync(join(ROOT, name), join(root, name), { recursive: true })
  for (const name of LOADER) cpSync(join(ROOT, 'native', name), join(root, 'native', name))
  await must([...tools.napi, 'create-npm-dirs'], { cwd: root })
  const manifest = read(root)
  const platforms = readdirSync(join(root, 'npm')).map((suffix) => {
    const into = join(root, 'npm', suffix)
    const file = `hearsay.${suffix}.node`
    const real = existsSync(join(binaries, file))
    if (real) cpSync(join(binaries, file), join(into, file))
    else writeFileSync(join(into, file), 'not built on this machine\n')
    for (const name of LICENCES) cpSync(join(ROOT, name), join(into, name))
    const platform = read(into)
    write(into, { ...platform, files: [...platform.files, ...LICENCES] })
    return { suffix, folder: into, real }
  })
  const optionalDependencies = Object.fromEntries(
    platforms.map(({ suffix }) => [`${manifest.name}-${suffix}`, manifest.version]),
  )
  write(root, { ...manifest, optionalDependencies })
  return { root, platforms }
}

/**
 * Packs folders into tarballs.
 *
 * @param {string[]} folders
 * @param {string} into
 * @returns {Promise<{ name: string, version: string, file: string, integrity: string, shasum: string, unpackedSize: number, files: string[], manifest: object }[]>}
 */
export async function pack(folders, into) {
  mkdirSync(into, { recursive: true })
  const line = [...tools.npm, 'pack', '--json', '--ignore-scripts', '--pack-destination', into, ...folders]
  const output = await must(line, { cwd: into })
  const found = JSON.parse(output.slice(output.search(/^[[{]/m)))
  return Object.values(found).map((made, index) => ({
    name: made.name,
    version: made.version,
    file: join(into, made.filename),
    integrity: made.integrity,
    shasum: made.shasum,
    unpackedSize: made.unpackedSize,
    files: made.files.map(({ path }) => path),
    manifest: read(folders[index]),
  }))
}
