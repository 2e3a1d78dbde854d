// The eight targets: what each file must be, and how this machine may build and run it.

const GLIBC = [
  /^(libc|libm)\.so\.6$/,
  /^libpthread\.so\.0$/,
  /^libdl\.so\.2$/,
  /^librt\.so\.1$/,
  /^ld-linux-/,
]
const MUSL = [/^libc\.so$/, /^libc\.musl-/]
const DARWIN = [/^\/usr\/lib\//, /^\/System\/Library\//]
const WINDOWS = [
  /^(kernel32|ntdll|ws2_32|bcryptprimitives|bcrypt|advapi32|userenv|ucrtbase|vcruntime\d+)\.dll$/i,
  /^api-ms-win-/i,
  /^node\.exe$/i,
]

/**
 * `suffix` is that of the package, `triple` that of the compiler. `needs` are the only libraries the file may ask for, `floor` the
 * newest version of glibc it may ask for, `bytesMax` its size at most. `run` says what can start a Node.js for it on an x64 Linux.
 */
export const TARGETS = [
  {
    suffix: 'linux-x64-gnu',
    triple: 'x86_64-unknown-linux-gnu',
    glibc: '2.17',
    format: 'elf',
    arch: 'x64',
    needs: GLIBC,
    floor: '2.28',
    bytesMax: 2_000_000,
    run: 'native',
  },
  {
    suffix: 'linux-arm64-gnu',
    triple: 'aarch64-unknown-linux-gnu',
    glibc: '2.17',
    format: 'elf',
    arch: 'arm64',
    needs: GLIBC,
    floor: '2.28',
    run: 'qemu',
  },
  {
    suffix: 'linux-x64-musl',
    triple: 'x86_64-unknown-linux-musl',
    format: 'elf',
    arch: 'x64',
    needs: MUSL,
    run: 'musl',
  },
  {
    suffix: 'linux-arm64-musl',
    triple: 'aarch64-unknown-linux-musl',
    format: 'elf',
    arch: 'arm64',
    needs: MUSL,
    run: 'qemu-musl',
  },
  { suffix: 'darwin-x64', triple: 'x86_64-apple-darwin', format: 'macho', arch: 'x64', needs: DARWIN },
  { suffix: 'darwin-arm64', triple: 'aarch64-apple-darwin', format: 'macho', arch: 'arm64', needs: DARWIN },
  {
    suffix: 'win32-x64-msvc',
    triple: 'x86_64-pc-windows-msvc',
    // The C runtime of msvc comes from no package registry; this build tries the same code, and is not shipped.
    stand: 'x86_64-pc-windows-gnu',
    format: 'pe',
    arch: 'x64',
    needs: WINDOWS,
    run: 'wine',
  },
  {
    suffix: 'win32-arm64-msvc',
    triple: 'aarch64-pc-windows-msvc',
    format: 'pe',
    arch: 'arm64',
    needs: WINDOWS,
    skip: 'needs the C runtime of msvc, and no emulator of arm64 Windows is known',
  },
]
