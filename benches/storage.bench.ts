import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Cluster } from '../ts/index.js'

// Writes with and without a disk, and starts with what the disk holds. The folder is where the system puts temporary files.
const WRITES = 100_000
const folder = await mkdtemp(join(tmpdir(), 'hearsay-bench-'))
const path = join(folder, 'store')
const value = { on: true, ratio: 0.25, owners: ['api-1', 'api-2'] }

/** CPU time of the process so far, ms: what the machine does besides counts for nothing. */
const cpuMs = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1_000
}

async function writes(label: string, cluster: Cluster): Promise<void> {
  const [from, cpuFrom] = [performance.now(), cpuMs()]
  for (let i = 0; i < WRITES; i++) cluster.state.set(`flags/${i}`, value)
  const written = performance.now()
  if (label === 'disk') await cluster.state.flush({ timeoutMs: 600_000 })
  const end = performance.now()
  const rate = (until: number): string => Math.round((WRITES / (until - from)) * 1_000).toLocaleString('en')
  const each = ((cpuMs() - cpuFrom) / WRITES) * 1_000
  console.log(
    `${label}: ${rate(written)} writes/s, ${rate(end)}/s until all are saved; ${each.toFixed(1)} us CPU each`,
  )
}

const memory = await Cluster.start()
await writes('memory', memory)
await memory.stop()
const disk = await Cluster.start({ name: 'bench', storage: { path } })
await writes('disk', disk)
let slowest = 0
const from = performance.now()
for (let i = 0; i < 100; i++) {
  const at = performance.now()
  disk.state.set(`flags/${i}`, value)
  await disk.state.flush()
  slowest = Math.max(slowest, performance.now() - at)
}
const mean = (performance.now() - from) / 100
console.log(`set and flush, one after another: mean ${mean.toFixed(2)} ms, slowest ${slowest.toFixed(1)} ms`)
await disk.stop()
const sizes = await Promise.all(
  (await readdir(path)).map(async (name) => (await stat(join(path, name))).size),
)
const fileBytes = sizes.reduce((sum, size) => sum + size, 0)
console.log(
  `on disk: ${(fileBytes / WRITES).toFixed(0)} B a key of ${JSON.stringify(value).length + 12} B at most`,
)
const [begun, cpuBegun] = [performance.now(), cpuMs()]
const again = await Cluster.start({ name: 'bench', storage: { path } })
console.log(
  `start with ${again.state.size} keys on disk: ${Math.round(performance.now() - begun)} ms, ${Math.round(cpuMs() - cpuBegun)} ms CPU`,
)
await again.stop()
await rm(folder, { recursive: true })
