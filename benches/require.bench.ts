import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** Takes less than this more than an empty script, ms. */
const LIMIT_MS = 15
const ROUNDS = 25
const door = fileURLToPath(new URL('../dist/index.js', import.meta.url))

const scripts = {
  'an empty script': '',
  'require the package': `require(${JSON.stringify(door)})`,
  'require it and load the addon': `new (require(${JSON.stringify(door)}).MerkleTree)()`,
}
const PRINT = ';const u = process.cpuUsage(); console.log((u.user + u.system) / 1000)'
const times = Object.keys(scripts).map((name) => ({ name, ms: [] as number[], cpu: [] as number[] }))
for (let round = 0; round <= ROUNDS; round++) {
  for (const { name, ms, cpu } of times) {
    const began = performance.now()
    const script = scripts[name as keyof typeof scripts] + PRINT
    const { status, stdout } = spawnSync(process.execPath, ['--eval', script])
    if (status !== 0) throw new Error(`${name} failed`)
    // The first round warms the disk's cache.
    if (round === 0) continue
    ms.push(performance.now() - began)
    cpu.push(Number(stdout))
  }
}
// The least is what the work takes; the rest is what else the machine did.
const least = (ms: number[]): number => Math.min(...ms)
const [empty = 0] = times.map(({ ms }) => least(ms))
const [emptyCpu = 0] = times.map(({ cpu }) => least(cpu))
console.log(`process start, least of ${ROUNDS}`)
for (const { name, ms, cpu } of times) {
  const more = least(ms) - empty
  console.log(
    `  ${name.padEnd(30)} ${least(ms).toFixed(1)} ms, ${more.toFixed(1)} ms more; ${(least(cpu) - emptyCpu).toFixed(1)} ms more CPU`,
  )
  if (more > LIMIT_MS) {
    console.log(`  FAIL: over ${LIMIT_MS} ms`)
    process.exitCode = 1
  }
}
