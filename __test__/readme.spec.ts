import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'

const root = fileURLToPath(new URL('..', import.meta.url))

test('the example of the README runs as it stands and exits by itself', async (t) => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  const example = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? ''
  t.true(example.includes("from 'hearsay'"))
  // Inside the package, so that its own name resolves to it.
  const folder = mkdtempSync(join(root, '.example-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'example.mjs')
  writeFileSync(file, example)
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [file], { timeout: 60_000 })
  t.is(stderr, '')
  t.deepEqual(stdout.trim().split('\n'), ['set flags/beta { on: true } by api-2', 'api-2 left'])
})
