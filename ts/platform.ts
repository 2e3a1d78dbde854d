/** The C library a Node.js on Linux is linked against. */
export type Libc = 'glibc' | 'musl'

/** What the addon must fit. */
export interface Platform {
  /** As `process.platform`. */
  readonly os: string
  /** As `process.arch`. */
  readonly arch: string
  /** Linux alone, null if it cannot be told. */
  readonly libc: Libc | null
  /** The running glibc's version, null elsewhere. */
  readonly glibc: string | null
}

/** The part of `process.report.getReport()` that tells the C library. */
export interface LibcReport {
  readonly header?: { readonly glibcVersionRuntime?: string }
  readonly sharedObjects?: readonly string[]
}

/** Suffixes of the packages with binaries. */
export const BINARIES: readonly string[] = [
  'linux-x64-gnu',
  'linux-arm64-gnu',
  'linux-x64-musl',
  'linux-arm64-musl',
  'darwin-x64',
  'darwin-arm64',
  'win32-x64-msvc',
  'win32-arm64-msvc',
]

/**
 * The C library that an executable names as its interpreter, read from its first bytes; null if it names none, as one does that
 * was started through its loader by hand.
 */
export function libcOfExecutable(path: string, head: string): Libc | null {
  if (path.includes('ld-musl-') || head.includes('/ld-musl-')) return 'musl'
  return head.includes('/ld-linux') ? 'glibc' : null
}

/** The C library as Node's diagnostic report tells it. */
export function libcOfReport(report: LibcReport): Libc | null {
  if (report.header?.glibcVersionRuntime !== undefined) return 'glibc'
  const musl = (path: string): boolean => path.includes('libc.musl-') || path.includes('ld-musl-')
  return report.sharedObjects?.some(musl) ? 'musl' : null
}

/** Suffix of the package for a platform: `linux-x64-musl`. It need not exist. */
export function suffixOf({ os, arch, libc }: Platform): string {
  if (os === 'linux') return `${os}-${arch}-${libc === 'musl' ? 'musl' : 'gnu'}`
  return os === 'win32' ? `${os}-${arch}-msvc` : `${os}-${arch}`
}

/** A platform in words: `linux-x64 (glibc 2.36)`. */
export function platformName({ os, arch, libc, glibc }: Platform): string {
  if (libc === null) return `${os}-${arch}`
  return `${os}-${arch} (${glibc === null ? libc : `${libc} ${glibc}`})`
}

/** Messages of an error and its causes, the first failure first, each once and on one line. Those about WebAssembly are left out. */
export function causes(error: unknown): string[] {
  const found: string[] = []
  for (let at = error; at instanceof Error && found.length < 16; at = at.cause) {
    const line = at.message.split('\n', 1)[0]?.trim() ?? ''
    if (line !== '' && !/wasi|wasm|npm\/cli\/issues/i.test(line) && !found.includes(line)) found.push(line)
  }
  return found.reverse()
}

/** Why the addon could not be loaded, and what helps. */
export function explain(platform: Platform, error: unknown): string {
  const suffix = suffixOf(platform)
  const why = causes(error)
  const begin = `the native addon cannot be loaded on ${platformName(platform)}: `
  const tried = why.length === 0 ? '' : ` (tried: ${why.join('; ')})`
  if (!BINARIES.includes(suffix)) {
    return `${begin}there is no binary for it, only for ${BINARIES.join(', ')}${tried}`
  }
  const missing = why.every((line) => line.startsWith('Cannot find module'))
  return missing
    ? `${begin}the package hearsay-${suffix} is not installed; reinstall without --omit=optional and, if the lock file was written on another platform, without it; in a clone run "npm run setup"${tried}`
    : `${begin}the binary hearsay-${suffix} is there but does not load${tried}`
}
