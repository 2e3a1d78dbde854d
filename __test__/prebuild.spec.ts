import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'

const script = fileURLToPath(new URL('../scripts/prebuild/inspect.mjs', import.meta.url))
const native = fileURLToPath(new URL('../native', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'hearsay-inspect-'))
test.after.always(() => rmSync(folder, { recursive: true, force: true }))

const built = readdirSync(native).find((name) =>
  name.startsWith(`hearsay.${process.platform}-${process.arch}`),
)
const bytes = readFileSync(join(native, built ?? 'none'))
const formats: Record<string, string> = { linux: 'elf', darwin: 'macho', win32: 'pe' }
const format = formats[process.platform] ?? 'none'

/** What the release's gate says about a file of this name. */
async function judge(suffix: string, content: Buffer): Promise<{ code: number; stdout: string }> {
  const file = join(folder, `hearsay.${suffix}.node`)
  writeFileSync(file, content)
  return promisify(execFile)(process.execPath, [script, file]).then(
    ({ stdout }) => ({ code: 0, stdout }),
    ({ code, stdout }) => ({ code, stdout }),
  )
}

test.serial('a binary of another system or processor is refused', async (t) => {
  const system = process.platform === 'win32' ? 'darwin-x64' : 'win32-x64-msvc'
  const other = await judge(system, bytes)
  t.is(other.code, 1)
  t.regex(other.stdout, new RegExp(`is ${format}, not ${formats[system.split('-')[0] ?? '']}`))

  const wrong = process.arch === 'x64' ? 'arm64' : 'x64'
  const suffix = (built ?? '').slice('hearsay.'.length, -'.node'.length).replace(process.arch, wrong)
  const swapped = await judge(suffix, bytes)
  t.is(swapped.code, 1)
  t.regex(swapped.stdout, new RegExp(`is for ${process.arch}, not ${wrong}`))

  const text = await judge(suffix, Buffer.from('not built on this machine\n'))
  t.is(text.code, 1)
  t.regex(text.stdout, /is unknown, not/)
})

const onGlibc = built?.endsWith('-gnu.node') ? test.serial : test.skip
onGlibc('a binary that asks for a newer glibc, or for glibc where musl is, is refused', async (t) => {
  const newer = Buffer.from(bytes)
  for (let at = newer.indexOf('GLIBC_2.17'); at >= 0; at = newer.indexOf('GLIBC_2.17', at))
    newer.write('GLIBC_2.99', at)
  t.notDeepEqual(newer, bytes)
  const floor = await judge(`linux-${process.arch}-gnu`, newer)
  t.is(floor.code, 1)
  t.regex(floor.stdout, /needs glibc 2\.99, more than 2\.28/)

  const musl = await judge(`linux-${process.arch}-musl`, bytes)
  t.is(musl.code, 1)
  t.regex(musl.stdout, /; needs libc\.so\.6/)
})

test.serial('a file of over 2 MB for the commonest platform is refused', async (t) => {
  const large = await judge('linux-x64-gnu', Buffer.alloc(2_000_001))
  t.is(large.code, 1)
  t.regex(large.stdout, /has 2000001 B, more than 2000000/)
  t.notRegex((await judge('linux-x64-gnu', Buffer.alloc(2_000_000))).stdout, /more than/)
})
