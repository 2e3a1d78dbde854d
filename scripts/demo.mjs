// `npm run demo`: five members as five processes on loopback; --json prints one object per step and nothing else.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } })

const setup = fileURLToPath(new URL('./setup.mjs', import.meta.url))
if (existsSync(setup)) {
  // The set-up's progress is not part of the demo's output: it goes to stderr.
  const done = spawnSync(process.execPath, [setup], { stdio: ['ignore', 2, 2] })
  if (done.status !== 0) {
    process.exit(done.status ?? 1)
  }
}

const { runDemo } = await import('./demo/steps.mjs')
const { createScreen } = await import('./demo/screen.mjs')
const ok = await runDemo(createScreen({ json: values.json }))
process.exitCode = ok ? 0 : 1
