// `npm run soak [-- --events 1000000 --cycles 10000]`: memory, descriptors and threads must stay flat over so many events handed to
// JavaScript and so many starts and stops. Prints one line per phase and one JSON object; exit code 1 if something grew.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '1000000' },
    cycles: { type: 'string', default: '10000' },
  },
})
if (globalThis.gc === undefined) {
  const args = ['--expose-gc', fileURLToPath(import.meta.url), ...process.argv.slice(2)]
  spawn(process.execPath, args, { stdio: 'inherit' }).on('exit', (code) => {
    process.exitCode = code ?? 1
  })
} else {
  await main(Number(values.events), Number(values.cycles))
}

/** What the process holds now; descriptors and threads are counted where the system shows them. */
async function held() {
  for (let round = 0; round < 3; round++) {
    globalThis.gc()
    await new Promise(setImmediate)
  }
  const count = (folder) => (existsSync(folder) ? readdirSync(folder).length : 0)
  const { rss, heapUsed, external } = process.memoryUsage()
  return {
    rss,
    heap: heapUsed + external,
    descriptors: count('/proc/self/fd'),
    threads: count('/proc/self/task'),
  }
}

/**
 * Runs `turn` until `total` units are done, of which the first fifth warms up, and samples what is held. Growth is the difference
 * of the medians of the first and the last third of the samples, so that one large page more is no leak.
 */
async function phase(name, total, turn) {
  const samples = []
  let done = 0
  while (done < total / 5) done += await turn()
  const from = done
  for (let sample = 1; sample <= 15; sample++) {
    while (done < from + ((total - from) * sample) / 15) done += await turn()
    samples.push(await held())
  }
  const third = samples.length / 3
  const median = (list, key) => list.map((one) => one[key]).sort((a, b) => a - b)[Math.floor(list.length / 2)]
  const growth = (key) => median(samples.slice(-third), key) - median(samples.slice(0, third), key)
  // Two thirds of the measured units lie between the two medians.
  const units = ((done - from) * 2) / 3
  const found = {
    phase: name,
    units: done,
    rssMiB: samples.map(({ rss }) => Math.round(rss / 1048576)),
    rssBytesPerUnit: Math.round((growth('rss') / units) * 100) / 100,
    heapBytesPerUnit: Math.round((growth('heap') / units) * 100) / 100,
    descriptors: growth('descriptors'),
    threads: growth('threads'),
  }
  process.stderr.write(`${JSON.stringify(found)}\n`)
  return { ...found, growthRss: growth('rss'), growthHeap: growth('heap') }
}

async function main(events, cycles) {
  const { Cluster } = await import('../dist/index.js')
  const phases = []

  const a = await Cluster.start({ name: 'soak-a' })
  const b = await Cluster.start({ name: 'soak-b', seeds: [a.self.address] })
  await a.waitFor({ members: 2, timeoutMs: 10_000 })
  const changes = a.state.watch()
  const keys = Array.from({ length: 500 }, (_, index) => `key/${index}`)
  let number = 0
  phases.push(
    await phase('events', events, async () => {
      number++
      for (const key of keys) a.state.set(key, { number, text: 'x'.repeat(64) })
      for (let got = 0; got < keys.length; got++) await changes.next()
      return keys.length
    }),
  )
  await changes.return()
  await b.leave()
  await a.stop()

  let turns = 0
  phases.push(
    await phase('start and stop', cycles, async () => {
      turns++
      const cluster = await Cluster.start({ name: `soak-${turns % 10}` })
      cluster.on('memberJoined', () => {})
      cluster.state.set('k', 'x'.repeat(10_000))
      const watching = cluster.state.watch()
      const waiting = cluster.waitFor({ members: 2, timeoutMs: 60_000 }).catch((error) => error.code)
      await (turns % 2 === 0 ? cluster.stop() : cluster.leave())
      await watching.return()
      await waiting
      return 1
    }),
  )

  // A real leak is every unit's, so it passes both: the part per unit and the whole.
  const grew = phases.filter(
    ({ rssBytesPerUnit, growthRss, heapBytesPerUnit, growthHeap, descriptors, threads, phase: name }) => {
      const perUnit = name === 'events' ? 8 : 1024
      return (
        (rssBytesPerUnit > perUnit && growthRss > 16 << 20) ||
        (heapBytesPerUnit > perUnit && growthHeap > 2 << 20) ||
        descriptors > 0 ||
        threads > 0
      )
    },
  )
  console.log(JSON.stringify({ ok: grew.length === 0, phases }))
  process.exitCode = grew.length === 0 ? 0 : 1
}
