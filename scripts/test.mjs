// Runs every check of the repository and adds them up. A check that fails does not keep the next from running. The last line
// is `N passed, N failed`; the exit code is 1 if anything failed.
import { setup } from './setup.mjs'
import { run, tools } from './tools.mjs'

let passed = 0
let failed = 0
const rows = []

function count(name, ok, bad, began) {
  passed += ok
  failed += bad
  rows.push({ name, ok, bad, seconds: (performance.now() - began) / 1000 })
}

const sum = (text, pattern) =>
  [...text.matchAll(pattern)].reduce((total, found) => total + Number(found[1]), 0)

/** A check that passes or fails as one; `hint` says what to do about a failure that does not say it itself. */
async function check(name, line, hint) {
  process.stderr.write(`\n--- ${name}\n`)
  const began = performance.now()
  const { code } = await run(line, { toStderr: true })
  if (code !== 0 && hint !== undefined) process.stderr.write(`${hint}\n`)
  count(name, code === 0 ? 1 : 0, code === 0 ? 0 : 1, began)
}

/** A runner of many tests: counts what it prints, and at least one failure if it fails without saying which. */
async function suite(name, line, passes, failures) {
  process.stderr.write(`\n--- ${name}\n`)
  const began = performance.now()
  const { code, output } = await run(line, { collect: true })
  const ok = sum(output, passes)
  const bad = sum(output, failures)
  const silent = code !== 0 ? 1 : ok + bad === 0 ? 1 : 0
  count(name, ok, Math.max(bad, silent), began)
}

const began = performance.now()
try {
  await setup()
} catch (error) {
  process.stderr.write(`set-up: ${error.message}\n`)
  count('set-up', 0, 1, began)
}
// What the build just wrote must be what the next clone gets; without git there is nothing to compare with.
const git = ['git', '-c', 'safe.directory=*']
if ((await run([...git, 'rev-parse', '--is-inside-work-tree'], { quiet: true })).code === 0) {
  const hint = 'the build wrote another loader or other types: git add native, and commit it'
  await check('drift', [...git, 'diff', '--exit-code', '--', 'native'], hint)
}
await check('biome', [...tools.biome, 'check', '--error-on-warnings', '.'])
await check('rustfmt', [...tools.cargo, 'fmt', '--all', '--check'])
await check('clippy', [
  ...tools.cargo,
  'clippy',
  '--workspace',
  '--all-targets',
  '--locked',
  '--',
  '-D',
  'warnings',
])
await check('tsc', [...tools.tsc, '-p', 'tsconfig.test.json'])
await check('workflows', [process.execPath, 'scripts/workflows.mjs'])
await check('docs', [...tools.typedoc, '--emit', 'none'])
await suite(
  'cargo test',
  [...tools.cargo, 'test', '--workspace', '--locked', '--no-fail-fast'],
  /^test result: .*?(\d+) passed;/gm,
  /^test result: .*? (\d+) failed;/gm,
)
await suite('ava', [...tools.ava, '--tap'], /^# pass (\d+)/gm, /^# fail (\d+)/gm)

process.stderr.write('\n')
for (const { name, ok, bad, seconds } of rows) {
  const mark = bad === 0 ? 'ok  ' : 'FAIL'
  console.log(
    `${mark} ${name.padEnd(12)} ${String(ok).padStart(5)} passed ${String(bad).padStart(4)} failed ${seconds.toFixed(1).padStart(8)} s`,
  )
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
