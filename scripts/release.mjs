// What a release does beyond building.
//
//   node scripts/release.mjs check [TAG]                     one version everywhere, and a changelog entry; the tag is v<version>
//   node scripts/release.mjs pack --binaries DIR --into DIR  all eight files are what they are named, each small enough with the library; packs nine tarballs
//   node scripts/release.mjs publish --into DIR [--dry-run]  platforms first, the library last; what is there already is left
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { faultsOf, inspect } from './prebuild/inspect.mjs'
import { TARGETS } from './prebuild/targets.mjs'
import { pack, stage } from './stage.mjs'
import { ROOT, run, tools } from './tools.mjs'

/** What `npm install` may put on a disk at most: the library and one binary together. */
const PAIR_BYTES_MAX = 3_000_000

const text = (name) => readFileSync(join(ROOT, name), 'utf8')
const manifest = JSON.parse(text('package.json'))

/** Every place that says a version must say the same one. */
function check(tag) {
  const wrong = []
  const { version } = manifest
  const cargo = /^\[workspace\.package\][^[]*?^version = "([^"]+)"/ms.exec(text('Cargo.toml'))?.[1]
  if (cargo !== version) wrong.push(`Cargo.toml says ${cargo}, package.json ${version}`)
  const loader = /bindingPackageVersion !== '([^']+)'/.exec(text('native/hearsay.cjs'))?.[1]
  if (loader !== version) wrong.push(`native/hearsay.cjs says ${loader}, package.json ${version}`)
  const lock = JSON.parse(text('package-lock.json'))
  if (lock.version !== version) wrong.push(`package-lock.json says ${lock.version}, package.json ${version}`)
  const locked = /name = "hearsay-addon"\nversion = "([^"]+)"/.exec(text('Cargo.lock'))?.[1]
  if (locked !== version) wrong.push(`Cargo.lock says ${locked}, package.json ${version}`)
  const heading = new RegExp(`^## ${version.replaceAll('.', '\\.')}\\b(.*)$`, 'm').exec(text('CHANGELOG.md'))
  if (heading === null) wrong.push(`CHANGELOG.md has no entry for ${version}`)
  if (tag !== undefined) {
    if (tag !== `v${version}`) wrong.push(`the tag is ${tag}, package.json says ${version}`)
    if (heading?.[1]?.includes('unreleased')) wrong.push(`CHANGELOG.md still calls ${version} unreleased`)
  }
  if ('optionalDependencies' in manifest)
    wrong.push('package.json has optionalDependencies before the release')
  return wrong
}

async function packAll(binaries, into) {
  const wrong = []
  for (const target of TARGETS) {
    const name = `hearsay.${target.suffix}.node`
    try {
      const found = faultsOf(inspect(readFileSync(join(binaries, name))), target)
      wrong.push(...found.map((fault) => `${name} ${fault}`))
    } catch {
      wrong.push(`${name} is missing`)
    }
  }
  if (wrong.length > 0) return wrong
  const folder = mkdtempSync(join(tmpdir(), 'hearsay-release-'))
  try {
    const { root, platforms } = await stage(folder, binaries)
    const packed = await pack([...platforms.map((platform) => platform.folder), root], into)
    const library = packed.at(-1)?.unpackedSize ?? 0
    for (const { name, file, unpackedSize } of packed) {
      console.log(`${unpackedSize} B unpacked ${file}`)
      if (name !== manifest.name && unpackedSize + library > PAIR_BYTES_MAX) {
        wrong.push(
          `${name} and the library have ${unpackedSize + library} B unpacked, more than ${PAIR_BYTES_MAX}`,
        )
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  return wrong
}

async function publish(from, dry) {
  const { name, version } = manifest
  const library = `${name}-${version}.tgz`
  const files = readdirSync(from).filter((file) => file.endsWith('.tgz'))
  if (files.length !== TARGETS.length + 1 || !files.includes(library)) {
    return [`${from} has ${files.length} tarballs, not ${TARGETS.length + 1}`]
  }
  for (const file of [...files.filter((other) => other !== library), library]) {
    const spec = `${file.slice(0, -`-${version}.tgz`.length)}@${version}`
    const there = dry ? '' : (await run([...tools.npm, 'view', spec, 'version'], { quiet: true })).output
    if (there.trim() === version) {
      console.log(`${spec} is published already`)
      continue
    }
    const how = dry ? ['--dry-run'] : ['--provenance']
    const line = [...tools.npm, 'publish', join(from, file), '--access', 'public', ...how]
    const { code } = await run(line)
    if (code !== 0) return [`${spec} was not published; run again: what is there is left alone`]
  }
  return []
}

const { values, positionals } = parseArgs({
  options: {
    binaries: { type: 'string' },
    into: { type: 'string' },
    'dry-run': { type: 'boolean', default: false },
  },
  allowPositionals: true,
})
const [verb, tag] = positionals
const wrong =
  verb === 'check'
    ? check(tag)
    : verb === 'pack' && values.binaries && values.into
      ? await packAll(resolve(values.binaries), resolve(values.into))
      : verb === 'publish' && values.into
        ? await publish(resolve(values.into), values['dry-run'])
        : ['usage: check [TAG] | pack --binaries DIR --into DIR | publish --into DIR [--dry-run]']
for (const fault of wrong) console.error(fault)
if (wrong.length === 0) console.log('ok')
process.exitCode = wrong.length === 0 ? 0 : 1
