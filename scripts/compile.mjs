// Makes dist of ts: declarations by the compiler, a file for each door of the package by the bundler. One file instead of a score halves
// what requiring the package takes.
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'
import { ROOT, run, tools } from './tools.mjs'

rmSync(join(ROOT, 'dist'), { recursive: true, force: true })
const { code } = await run([...tools.tsc, '-p', 'tsconfig.json'])
process.exitCode = code
if (code === 0) {
  await build({
    absWorkingDir: ROOT,
    entryPoints: ['ts/index.ts', 'ts/testing.ts'],
    outdir: 'dist',
    bundle: true,
    splitting: true,
    chunkNames: 'shared',
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    sourcemap: true,
    logLevel: 'warning',
  })
}
