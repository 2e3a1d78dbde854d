// Runs every criterion bench of the workspace, then every benny file of benches/. Names given on the command line pick files.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setup } from './setup.mjs'
import { ROOT, run, tools } from './tools.mjs'

const wanted = process.argv.slice(2)
const picked = (name) => wanted.length === 0 || wanted.some((word) => name.includes(word))

await setup({ dev: false })
let code = 0

const metadata = await run(
  [...tools.cargo, 'metadata', '--format-version=1', '--no-deps', '--locked', '--quiet'],
  { quiet: true },
)
for (const { name, targets } of JSON.parse(metadata.output).packages) {
  for (const target of targets) {
    if (!target.kind.includes('bench') || !picked(target.name)) continue
    const done = await run([...tools.cargo, 'bench', '--locked', '-p', name, '--bench', target.name])
    code ||= done.code
  }
}
for (const file of readdirSync(join(ROOT, 'benches')).sort()) {
  if (!/\.bench\.(ts|mjs)$/.test(file) || !picked(file)) continue
  const done = await run([...tools.ts, join('benches', file)])
  code ||= done.code
}
process.exitCode = code
