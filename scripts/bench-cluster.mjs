// `npm run bench:cluster`: members on loopback in a few processes, beside the simulator and memberlist. `-- --json` prints one
// object per row and nothing else, `-- --small` is a quick run, `-- --members 8,32` picks the sizes, `-- --no-peers` leaves
// memberlist out, `-- --only spread|state|bulk` runs one part, `-- --keys 1000000` sets the keys of the last two.
import { spawnSync } from 'node:child_process'
import { cpus, loadavg } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { setup } from './setup.mjs'
import { ROOT, run } from './tools.mjs'

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    small: { type: 'boolean', default: false },
    members: { type: 'string' },
    'no-peers': { type: 'boolean', default: false },
    only: { type: 'string' },
    keys: { type: 'string' },
  },
})
const { small, json } = values
const sizes = (values.members ?? (small ? '8,32' : '8,32,100')).split(',').map(Number)
const keys = Number(values.keys ?? (small ? 10_000 : 100_000))
const wants = (part) => values.only === undefined || values.only === part
const PROCESSES = 4
const say = (text) => process.stderr.write(`${text}\n`)

/** memberlist 0.7.0 as measured for this project's notes: t50, t99, t100 of one broadcast, and broadcasts per second. */
const NOTED = {
  8: { t50Ms: 142, t100Ms: 236, rate: 60, idle: 89, cpu: 1.1 },
  32: { t50Ms: 236, t100Ms: 452, rate: 25, idle: 89, cpu: 0.73 },
  100: { t50Ms: 278, t99Ms: 536, t100Ms: 585, rate: 16, idle: 89, cpu: 0.62 },
}

const number = (value, digits = 0) => (value == null ? '-' : value.toFixed(digits))
const spreadText = (s) =>
  `t50 ${number(s.t50Ms)}, t99 ${number(s.t99Ms)}, t100 ${number(s.t100Ms)} ms` +
  (s.repetitions === undefined
    ? ''
    : ` (t100 ${number(s.t100MsMin)}..${number(s.t100MsMax)}; ${s.repetitions} times, ${s.incomplete} incomplete)`)
const loadText = (l) =>
  `${number(l.bytesPerSecond)} B/s, ${number(l.datagramsPerSecond, 1)} datagrams/s, ${number(l.cpuMsPerSecond, 2)} ms CPU/s`

const share = (part, whole) => `${number(part)} B, ${number(part / whole, 2)} x the floor`

function print(row, text) {
  if (json) console.log(JSON.stringify(row))
  else console.log(text)
}

/** Builds the peer; undefined, and why, if it cannot be. */
async function peer() {
  if (values['no-peers']) return undefined
  const folder = join(ROOT, 'benches/peers/memberlist')
  const binary = join(ROOT, 'node_modules/.cache/hearsay/memberlist-bench')
  if (spawnSync('go', ['version']).error !== undefined) {
    print({ row: 'peer', skipped: 'Go is not installed' }, 'memberlist: skipped, Go is not installed')
    return undefined
  }
  say('building memberlist')
  const built = spawnSync('go', ['build', '-o', binary, '.'], { cwd: folder, encoding: 'utf8' })
  if (built.status === 0) return binary
  const why = (built.stderr || String(built.error)).trim().split('\n').at(-1)
  print({ row: 'peer', skipped: why }, `memberlist: skipped, it cannot be built: ${why}`)
  return undefined
}

async function memberlist(binary, members) {
  const seconds = small ? 3 : 5
  const rates = members <= 8 ? '20,30,45,60,80' : members <= 32 ? '10,15,25,35,50' : '8,12,16,24,32'
  const plan = [
    '-repetitions',
    small ? '8' : '30',
    '-idle',
    small ? '4s' : '15s',
    '-seconds',
    String(seconds),
  ]
  const { code, output } = await run(
    [
      binary,
      '-members',
      String(members),
      ...plan,
      '-rates',
      small ? rates.split(',').slice(0, 3).join() : rates,
    ],
    { quiet: true },
  )
  return code === 0 ? JSON.parse(output) : undefined
}

/** The same in virtual time, with the settings of the members measured and this one-way delay. */
async function simulated(simulate, members, delayMs) {
  const options = { members, seed: 1, delayMs, config: { profile: 'lan' } }
  const count = small ? 8 : 30
  const [rumor, broadcast] = await Promise.all([
    simulate({ ...options, scenario: { kind: 'rumor', writes: count, valueBytes: 100 } }),
    simulate({ ...options, scenario: { kind: 'broadcast', broadcasts: count, payloadBytes: 100 } }),
  ])
  const spread = ({ figures }) => ({
    t50Ms: figures.halfMs.median,
    t99Ms: figures.mostMs.median,
    t100Ms: figures.allMs.median,
    t100MsMin: null,
    t100MsMax: figures.allMs.max,
    repetitions: count,
    incomplete: figures.late,
  })
  return {
    update: spread(rumor),
    broadcast: spread(broadcast),
    idle: { ...rumor.figures.idle, cpuMsPerSecond: null },
  }
}

await setup({ dev: false })
const { simulate } = await import('../dist/index.js')
const { calibrate, measure: measureSpread } = await import('../benches/cluster/spread.mjs')
const { measure: measureRepair } = await import('../benches/cluster/repair.mjs')
const { measure: measureBulk } = await import('../benches/cluster/bulk.mjs')
const { version } = process
const cpu = cpus()[0]?.model.trim()
print(
  { row: 'machine', cpu, cpus: cpus().length, load: loadavg()[0], node: version },
  `${cpus().length} x ${cpu}, Node ${version.slice(1)}, ${number(loadavg()[0], 1)} other tasks running. Members share these CPUs and this loopback: times are upper bounds.\n` +
    'Times are from the call in one process to the callback in another, medians of the repetitions over all other members.',
)
async function spreadRows() {
  const pair = await simulate({ members: 2, scenario: { kind: 'rumor', writes: 200, valueBytes: 100 } })
  const way = await calibrate(small ? 20 : 60)
  const simulatedMs = pair.figures.allMs.median
  const extraMs = Math.max(0, way.otherMs - simulatedMs)
  print(
    { row: 'way', ...way, simulatedMs, extraMs },
    `One way between two members: ${number(way.otherMs, 1)} ms (90 %: ${number(way.otherMsP90, 1)}), of it ${number(way.ownMs, 2)} ms from set() to the own watcher; simulated ${number(simulatedMs, 1)} ms.\n` +
      `"With this machine's way": the simulation with ${number(extraMs, 1)} ms more per hop.`,
  )
  const binary = await peer()

  for (const members of sizes) {
    const plan = {
      processes: PROCESSES,
      repetitions: small ? 8 : 30,
      apartMs: 500,
      idleMs: small ? 4_000 : 15_000,
      seconds: small ? 3 : 5,
      rates: small ? [100, 500] : [50, 100, 250, 500, 750, 1_000, 1_250, 1_500, 2_000],
      say: (text) => say(`  ${text}`),
    }
    const ours = await measureSpread(members, plan)
    const virtual = await simulated(simulate, members, 0.3)
    const late = await simulated(simulate, members, 0.3 + extraMs)
    const theirs = binary === undefined ? undefined : await memberlist(binary, members)
    const noted = NOTED[members]
    const best = ours.sustained
    print(
      {
        row: 'spread',
        ...ours,
        simulated: virtual,
        simulatedWithWay: late,
        memberlist: theirs,
        memberlistNoted: noted,
      },
      [
        `\nN = ${members} in ${ours.processes} processes (joined in ${number(ours.joinMs)} ms)`,
        `  one update, 100 B       ${spreadText(ours.update)}`,
        `    simulated             ${spreadText(virtual.update)}`,
        `    with this machine's way  ${spreadText(late.update)}`,
        `  one broadcast, 100 B    ${spreadText(ours.broadcast)}`,
        `    simulated             ${spreadText(virtual.broadcast)}`,
        `    with this machine's way  ${spreadText(late.broadcast)}`,
        theirs && `    memberlist, this run  ${spreadText(theirs.broadcast)}`,
        noted && `    memberlist, noted     ${spreadText(noted)}`,
        `  idle, per member        ${loadText(ours.idle)}`,
        `    simulated             ${number(virtual.idle.bytesPerSecond)} B/s, ${number(virtual.idle.datagramsPerSecond, 1)} datagrams/s`,
        theirs && `    memberlist, this run  ${loadText(theirs.idle)} (UDP; its TCP exchange not counted)`,
        noted && `    memberlist, noted     ${noted.idle} B/s and TCP, ${noted.cpu} ms CPU/s`,
        `  updates/s complete      ${best === null ? 'none' : `${best.rate}: all members have all ${number(best.behindMs)} ms after the last write; ${loadText(best)} per member`}`,
        ...ours.ladder
          .filter((step) => !step.isSustained)
          .map(
            (step) =>
              `    not at ${step.rate}/s: ${step.lost > 0 ? `${step.lost} writes missing` : `${number(step.behindMs)} ms behind`}, ${step.backlogged} writes backlogged, ${step.kernelDrops} datagrams dropped by the kernel; ${number(step.cpuMsPerSecond * members)} ms CPU/s in all`,
          ),
        theirs &&
          `    memberlist, this run  all members have all at ${theirs.sustainedWhole}/s, 99 % at ${theirs.sustained99}/s (of ${theirs.ladder.map((step) => step.rate).join(', ')})`,
        noted && `    memberlist, noted     ${noted.rate}/s for 99 % within 3 s`,
      ]
        .filter(Boolean)
        .join('\n'),
    )
  }
}

async function stateRows() {
  const state = await measureRepair({
    keys,
    differing: [1, 10, 1_000],
    idleMs: small ? 5_000 : 15_000,
    say: (text) => say(`  ${text}`),
  })
  print(
    { row: 'state', ...state },
    [
      `\nState, ${state.members} members in ${state.processes} processes`,
      `  ${state.fill.keys} keys of 100 B to four newcomers: ${number(state.fill.ms)} ms, ${share(state.fill.bytes, state.fill.floorBytes)}, ${number(state.fill.cpuMs)} ms CPU`,
      '  written on a member cut off from the others (hearsay/testing) until its rumors were cold, then healed: anti-entropy alone',
      ...state.repairs.map(
        (r) =>
          `  ${String(r.keys).padStart(6)} differing keys: ${number(r.repairedMs)} ms from the heal, ${number(r.sinceWriteMs)} ms from the write (entries settle for 3 s first); ${share(r.bytes, r.floorBytes)}, ${r.datagrams} datagrams beyond the idle load`,
      ),
    ].join('\n'),
  )
}

async function bulkRows() {
  const bulk = await measureBulk({ keys, idleMs: small ? 10_000 : 30_000, say: (text) => say(`  ${text}`) })
  const gaps = (jitter) =>
    `${number(jitter.p99Ms)} (99 %), ${number(jitter.maxMs)} (longest of ${jitter.beats})`
  print(
    { row: 'bulk', ...bulk },
    [
      `\nBulk, ${bulk.keys} keys of 100 B to a third member: ${number(bulk.ms)} ms, ${share(bulk.bytes, bulk.floorBytes)}, ${number(bulk.sourceCpuMs)} ms CPU at the source`,
      `  between heartbeats of the source, one each ${bulk.heartbeatMs} ms, ms at the second member: idle ${gaps(bulk.idle)}; meanwhile ${gaps(bulk.during)}`,
    ].join('\n'),
  )
}

if (wants('spread')) await spreadRows()
if (wants('state')) await stateRows()
if (wants('bulk')) await bulkRows()
