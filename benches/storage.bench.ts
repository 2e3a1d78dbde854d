import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Cluster } from '../ts/index.js'

// Writes with and without a disk, and starts with what the disk holds. The folder is where the system puts temporary files.
const WRITES = 100_000
const folder = await mkdtemp(join(tmpdir(), 'hearsay-bench-'))
const path = join(folder, 'store')
const value = { on: true, ratio: 0.25, owners: ['api-1', 'api-2'] }

async function writes(label: string, cluster: Cluster): Promise<void> {
  const from = performance.now()
  for (let i = 0; i < WRITES; i++) cluster.state.set(`flags/${i}`, value)
  const written = performance.now()
  if (label === 'disk') await cluster.state.flush({ timeoutMs: 600_000 })
  const end = performance.now()
  const rate = (until: number): string => Math.round((WRITES / (until - from)) * 1_000).toLocaleString('en')
  console.log(`${label}: ${rate(written)} writes/s, ${rate(end)}/s until all are saved`)
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
const begun = performance.now()
const again = await Cluster.start({ name: 'bench', storage: { path } })
console.log(`start with ${again.state.size} keys on disk: ${Math.round(performance.now() - begun)} ms`)
await again.stop()
await rm(folder, { recursive: true })
