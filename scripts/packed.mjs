// What users get: packs the library and its platforms, installs them with `npm install hearsay` from a registry on 127.0.0.1 into
// an empty folder outside the tree, and runs the README's example from there as ESM, as CommonJS and in a worker.
//
//   node scripts/packed.mjs [--into FOLDER] [--binaries FOLDER] [--node PATH]...
//
// Prints one JSON object; exit code 1 if an example failed. Needs `npm run build` first.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { serve } from './registry.mjs'
import { pack, stage } from './stage.mjs'
import { ROOT, run, tools } from './tools.mjs'

const SAYS = ['set flags/beta { on: true } by api-2', 'api-2 left']

/**
 * Stages, packs and installs below `folder`; the installed tree is `folder/app/node_modules`.
 *
 * @param {string} folder
 * @param {string} [binaries]
 */
export async function install(folder, binaries) {
  const { root, platforms } = await stage(folder, binaries)
  const packages = await pack(
    [root, ...platforms.map((platform) => platform.folder)],
    join(folder, 'tarballs'),
  )
  const app = join(folder, 'app')
  const { url, strangers, close } = await serve(packages)
  try {
    const cache = join(folder, 'cache')
    const line = ['install', '--prefix', app, '--registry', url, '--cache', cache, '--no-audit', '--no-fund']
    const { code, output } = await run([...tools.npm, ...line, packages[0].name], {
      quiet: true,
      cwd: folder,
    })
    if (code !== 0) throw new Error(`npm install failed:\n${output}`)
  } finally {
    await close()
  }
  const installed = readdirSync(join(app, 'node_modules')).filter((name) => !name.startsWith('.'))
  const own = packages.filter(({ name }) => installed.includes(name))
  return {
    app,
    installed,
    strangers,
    real: platforms.filter(({ real }) => real).map(({ suffix }) => suffix),
    tarballs: own.map(({ name, file, unpackedSize, files }) => ({ name, file, unpackedSize, files })),
  }
}

/** The README's example as an ES module, as CommonJS and in a worker: names and texts of files. */
export function exampleFiles() {
  const readme = readFileSync(join(ROOT, 'README.md'), 'utf8')
  const example = /```ts\n([\s\S]*?)```/.exec(readme)?.[1] ?? ''
  const [from, ...body] = example.split('\n')
  const imported = /^import (\{.*\}) from '(.*)'$/.exec(from ?? '')
  if (imported === null) throw new Error("the README's example does not begin with its import")
  const commonjs = [
    `const ${imported[1]} = require('${imported[2]}')`,
    'async function main() {',
    ...body,
    '}',
    'main()',
  ]
  return {
    'example.mjs': example,
    'example.cjs': commonjs.join('\n'),
    'worker.mjs': `import { Worker } from 'node:worker_threads'\nnew Worker(new URL('example.mjs', import.meta.url))\n`,
  }
}

/**
 * Runs the examples in an installed folder with a Node.js.
 *
 * @param {string} app
 * @param {string} [node]
 */
export async function runExamples(app, node = process.execPath) {
  const found = []
  const { output: version } = await run([node, '--version'], { quiet: true })
  for (const [name, text] of Object.entries(exampleFiles())) {
    writeFileSync(join(app, name), text)
    const began = performance.now()
    const { code, output } = await run([node, name], { quiet: true, cwd: app })
    const ok = code === 0 && output.trim() === SAYS.join('\n')
    const ms = Math.round(performance.now() - began)
    found.push({ node: version.trim(), name, ok, ms, ...(ok ? {} : { code, output }) })
  }
  return found
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({
    options: {
      into: { type: 'string' },
      binaries: { type: 'string' },
      node: { type: 'string', multiple: true },
    },
  })
  const folder = values.into ?? mkdtempSync(join(tmpdir(), 'hearsay-packed-'))
  try {
    const got = await install(folder, values.binaries)
    const examples = []
    for (const node of values.node ?? [process.execPath]) examples.push(...(await runExamples(got.app, node)))
    console.log(JSON.stringify({ ...got, examples }))
    process.exitCode = examples.every(({ ok }) => ok) ? 0 : 1
  } finally {
    if (values.into === undefined) rmSync(folder, { recursive: true, force: true })
  }
}
