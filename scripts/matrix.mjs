// `npm run matrix [-- 20 22 --ava]`: packs once and runs the README's example on every supported Node.js, fetched from npm; with
// --ava the whole ava suite too. One line per Node.js; the last is `N passed, N failed`.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { install, runExamples } from './packed.mjs'
import { setup } from './setup.mjs'
import { ROOT, run, tools } from './tools.mjs'

const { values, positionals } = parseArgs({
  options: { ava: { type: 'boolean', default: false } },
  allowPositionals: true,
})
const wanted = positionals.length > 0 ? positionals : ['20', '22', '24', '26']
let passed = 0
let failed = 0
const say = (ok, text) => {
  if (ok) passed++
  else failed++
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${text}`)
}

/** Fetches a Node.js of this major; its executable, or undefined. */
async function fetchNode(folder, major) {
  const into = join(folder, `node-${major}`)
  mkdirSync(into)
  writeFileSync(join(into, 'package.json'), '{"private":true}')
  // The package `node` links its executable in an install script; the platform's own package holds it.
  const os = process.platform === 'win32' ? 'win' : process.platform
  const name = `node-${os}-${process.arch}`
  const line = [...tools.npm, 'install', '--no-audit', '--no-fund', '--ignore-scripts', `${name}@${major}`]
  const { code, output } = await run(line, { cwd: into, quiet: true })
  if (code !== 0) {
    say(false, `Node ${major}: ${name}@${major} cannot be fetched: ${output.trim().split('\n').at(-1)}`)
    return undefined
  }
  return join(into, 'node_modules', name, os === 'win' ? 'bin/node.exe' : 'bin/node')
}

await setup()
const folder = mkdtempSync(join(tmpdir(), 'hearsay-matrix-'))
try {
  const { app } = await install(folder)
  for (const major of wanted) {
    const node = await fetchNode(folder, major)
    if (node === undefined) continue
    for (const example of await runExamples(app, node)) {
      const { ok, name, ms } = example
      say(ok, `${example.node} ${name} ${ms} ms${ok ? '' : `\n${example.output}`}`)
    }
    if (values.ava) {
      const ava = join(ROOT, 'node_modules/ava/entrypoints/cli.mjs')
      const { code, output } = await run([node, ava, '--tap'], { collect: true })
      const count = (pattern) => Number(pattern.exec(output)?.[1] ?? 0)
      say(
        code === 0,
        `Node ${major} ava: ${count(/^# pass (\d+)/m)} passed ${count(/^# fail (\d+)/m)} failed`,
      )
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
