import { spawn, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import test from 'ava'

const script = new URL('../scripts/netns.mjs', import.meta.url).pathname
const built = new URL('../dist/index.js', import.meta.url).pathname

interface Step {
  step: string
  ok?: boolean
  skipped?: string
  members?: number
}

const lines = (text: string): Step[] =>
  text
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))

/** Why namespaces cannot be made here. */
function obstacle(): string | undefined {
  if (!existsSync(built)) return 'dist is missing: npm run setup'
  const probe = spawnSync(process.execPath, [script, '--probe'], { encoding: 'utf8' })
  if (probe.status === 0) return undefined
  return lines(probe.stdout)[0]?.skipped ?? `the probe ended with ${probe.status}: ${probe.stderr.trim()}`
}

function run(args: string[]): Promise<{ code: number | null; steps: Step[]; stderr: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, ...args])
    let [stdout, stderr] = ['', '']
    child.stdout.on('data', (data) => {
      stdout += data
    })
    child.stderr.on('data', (data) => {
      stderr += data
    })
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, steps: lines(stdout), stderr }))
  })
}

const why = obstacle()
const title =
  'five processes in network namespaces: split, one-way cut, loss, kill and leave, stop, another address'
if (why === undefined) {
  test(title, async (t) => {
    t.timeout(110_000)
    const { code, steps, stderr } = await run(['--short', '--members', '5'])
    t.deepEqual(
      steps.filter((step) => step.ok !== true),
      [],
      stderr,
    )
    t.is(steps.length, 7)
    t.is(code, 0)
    const left = spawnSync('ip', ['netns', 'list'], { encoding: 'utf8' }).stdout
    t.notRegex(left, new RegExp(`hearsay-${process.pid}`))
  })
} else {
  test.skip(`${title} (skipped: ${why})`, () => {})
}

test('without the rights the run is skipped: it says why, and ends with 0', (t) => {
  const nobody = process.getuid?.() === 0 ? { uid: 65_534 } : {}
  const skipped = spawnSync(process.execPath, [script], { encoding: 'utf8', ...nobody })
  const [line, ...rest] = lines(skipped.stdout)
  t.regex(line?.skipped ?? '', /^(not root|no network namespaces on \w+)$/, skipped.stderr)
  t.deepEqual([skipped.status, rest], [0, []])
  t.is(spawnSync(process.execPath, [script, '--probe'], { ...nobody }).status, 2)
})
