// Reads what a native library is, without any tool of a system: format, architecture, the libraries it needs, and the newest
// version of glibc it asks for.
//
//   node scripts/prebuild/inspect.mjs FILE...      each named hearsay.<suffix>.node; exit code 1 if one is not what its name says
import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { pathToFileURL } from 'node:url'
import { TARGETS } from './targets.mjs'

/** A text that ends with a zero byte. */
const text = (bytes, at) => bytes.toString('latin1', at, bytes.indexOf(0, at))

/** Compares versions of numbers and dots. */
export function compareVersions(a, b) {
  const [left, right] = [a, b].map((version) => version.split('.').map(Number))
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

function elf(bytes) {
  const machine = { 62: 'x64', 183: 'arm64' }[bytes.readUInt16LE(18)] ?? `machine ${bytes.readUInt16LE(18)}`
  const table = Number(bytes.readBigUInt64LE(40))
  const [size, count] = [bytes.readUInt16LE(58), bytes.readUInt16LE(60)]
  const sections = Array.from({ length: count }, (_, index) => {
    const at = table + index * size
    return {
      type: bytes.readUInt32LE(at + 4),
      offset: Number(bytes.readBigUInt64LE(at + 24)),
      size: Number(bytes.readBigUInt64LE(at + 32)),
      link: bytes.readUInt32LE(at + 40),
      info: bytes.readUInt32LE(at + 44),
    }
  })
  const needed = []
  const glibc = []
  for (const section of sections) {
    const strings = sections[section.link]?.offset ?? 0
    if (section.type === 6) {
      for (let at = section.offset; at < section.offset + section.size; at += 16) {
        const tag = bytes.readBigInt64LE(at)
        if (tag === 1n) needed.push(text(bytes, strings + Number(bytes.readBigUInt64LE(at + 8))))
      }
    } else if (section.type === 0x6ffffffe) {
      for (let file = 0, at = section.offset; file < section.info; file++) {
        let entry = at + bytes.readUInt32LE(at + 8)
        for (let left = bytes.readUInt16LE(at + 2); left > 0; left--) {
          const version = /^GLIBC_([\d.]+)$/.exec(text(bytes, strings + bytes.readUInt32LE(entry + 8)))
          if (version !== null) glibc.push(version[1])
          entry += bytes.readUInt32LE(entry + 12)
        }
        at += bytes.readUInt32LE(at + 12)
      }
    }
  }
  return { format: 'elf', arch: machine, needed, floor: glibc.sort(compareVersions).at(-1) ?? null }
}

function macho(bytes) {
  const cpu = bytes.readUInt32LE(4)
  const arch = { 16777223: 'x64', 16777228: 'arm64' }[cpu] ?? `cpu ${cpu}`
  const needed = []
  let floor = null
  for (let left = bytes.readUInt32LE(16), at = 32; left > 0; left--) {
    const command = bytes.readUInt32LE(at)
    // LC_LOAD_DYLIB, its weak and its re-exporting forms.
    if ([0xc, 0x80000018, 0x8000001f].includes(command))
      needed.push(text(bytes, at + bytes.readUInt32LE(at + 8)))
    // LC_BUILD_VERSION: the oldest macOS.
    if (command === 0x32) floor = `${bytes.readUInt16LE(at + 14)}.${bytes.readUInt8(at + 13)}`
    at += bytes.readUInt32LE(at + 4)
  }
  return { format: 'macho', arch, needed, floor }
}

function pe(bytes) {
  const header = bytes.readUInt32LE(60)
  const machine = bytes.readUInt16LE(header + 4)
  const arch = { 34404: 'x64', 43620: 'arm64' }[machine] ?? `machine ${machine}`
  const [count, optional] = [bytes.readUInt16LE(header + 6), header + 24]
  const table = optional + bytes.readUInt16LE(header + 20)
  /** Where a virtual address lies in the file. */
  const place = (address) => {
    for (let index = 0; index < count; index++) {
      const at = table + index * 40
      const start = bytes.readUInt32LE(at + 12)
      if (address >= start && address < start + bytes.readUInt32LE(at + 16)) {
        return address - start + bytes.readUInt32LE(at + 20)
      }
    }
    return -1
  }
  const needed = []
  // Directory 1 are the imports, 13 those that wait for their first use.
  for (const [directory, step, name] of [
    [1, 20, 12],
    [13, 32, 4],
  ]) {
    const address = bytes.readUInt32LE(optional + 112 + directory * 8)
    if (address === 0) continue
    for (let at = place(address); at >= 0 && bytes.readUInt32LE(at + name) !== 0; at += step) {
      needed.push(text(bytes, place(bytes.readUInt32LE(at + name))))
    }
  }
  return { format: 'pe', arch, needed, floor: null }
}

/**
 * What a file is: `size` in bytes, `floor` is the newest glibc it asks for, or the oldest macOS it runs on.
 *
 * @param {Buffer} bytes
 */
export function inspect(bytes) {
  return { size: bytes.length, ...read(bytes) }
}

function read(bytes) {
  if (bytes.length > 64 && bytes.readUInt32BE(0) === 0x7f454c46) return elf(bytes)
  if (bytes.length > 64 && bytes.readUInt32LE(0) === 0xfeedfacf) return macho(bytes)
  if (bytes.length > 64 && bytes.toString('latin1', 0, 2) === 'MZ') return pe(bytes)
  return { format: 'unknown', arch: 'unknown', needed: [], floor: null }
}

/**
 * What is wrong with a file for a target; empty if nothing is.
 *
 * @param {ReturnType<typeof inspect>} found
 * @param {(typeof TARGETS)[number]} target
 */
export function faultsOf(found, target) {
  const wrong = []
  if (found.format !== target.format) wrong.push(`is ${found.format}, not ${target.format}`)
  if (found.arch !== target.arch) wrong.push(`is for ${found.arch}, not ${target.arch}`)
  for (const name of found.needed) {
    if (!target.needs.some((allowed) => allowed.test(name))) wrong.push(`needs ${name}`)
  }
  if (target.floor !== undefined && found.floor !== null && compareVersions(found.floor, target.floor) > 0) {
    wrong.push(`needs glibc ${found.floor}, more than ${target.floor}`)
  }
  if (found.size > (target.bytesMax ?? Number.POSITIVE_INFINITY)) {
    wrong.push(`has ${found.size} B, more than ${target.bytesMax}`)
  }
  return wrong
}

/** One line on a file. */
export function describe(bytes) {
  const { size, format, arch, needed, floor } = inspect(bytes)
  const least = floor === null ? '' : format === 'macho' ? ` macOS>=${floor}` : ` glibc>=${floor}`
  return `${(size / 1e6).toFixed(2)} MB ${format} ${arch}${least} needs ${needed.join(' ') || 'nothing'}`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const files = process.argv.slice(2)
  if (files.length === 0) process.exitCode = 1
  for (const file of files) {
    const target = TARGETS.find(({ suffix }) => basename(file) === `hearsay.${suffix}.node`)
    const bytes = readFileSync(file)
    const wrong = target === undefined ? ['has the name of no target'] : faultsOf(inspect(bytes), target)
    console.log(
      `${wrong.length === 0 ? 'ok  ' : 'FAIL'} ${basename(file)} ${describe(bytes)} ${wrong.join('; ')}`.trimEnd(),
    )
    if (wrong.length > 0) process.exitCode = 1
  }
}
