// Updates and broadcasts to everybody, load, and the highest rate at which every member stays complete.
import { setTimeout as sleep } from 'node:timers/promises'
import { Fleet } from './fleet.mjs'

const PREFIX = 'u/'
const TOPIC = 't'
/** Longest wait for the last member. */
const AT_MOST_MS = 5_000
/** Members are complete if they have everything so long after the last write. */
const BEHIND_MS = 3_000

const sorted = (values) => [...values].sort((a, b) => a - b)
/** The value at this share of a sample. */
export const quantile = (values, share) =>
  sorted(values)[Math.max(0, Math.ceil(values.length * share) - 1)] ?? null

/** The times until 50, 99 and 100 % of the other members were told: medians over the repetitions. */
function spreadOf(runs) {
  const whole = runs.filter((run) => run.missing === 0)
  const at = (share) =>
    quantile(
      whole.map((run) => quantile(run.times, share)),
      0.5,
    )
  return {
    repetitions: runs.length,
    t50Ms: at(0.5),
    t99Ms: at(0.99),
    t100Ms: at(1),
    t100MsMin: Math.min(...whole.map((run) => Math.max(...run.times))),
    t100MsMax: Math.max(...whole.map((run) => Math.max(...run.times))),
    incomplete: runs.length - whole.length,
  }
}

async function spread(fleet, repetitions, apartMs, act) {
  const runs = []
  for (let i = 0; i < repetitions; i++) {
    const member = Math.floor(Math.random() * fleet.members)
    const key = `${PREFIX}${String(i).padStart(10, '0')}`
    const at = await act(member, key)
    const times = (await fleet.all('arrivals', { key, timeoutMs: AT_MOST_MS }))
      .flat()
      .map((time) => time - at)
    // The sender is told first.
    const others = sorted(times).slice(1)
    runs.push({ times: others, missing: fleet.members - 1 - others.length })
    await sleep(apartMs + Math.random() * 200)
  }
  return spreadOf(runs)
}

/** One round of load: whether all members had everything in time, and what it cost. */
async function load(fleet, round, rate, seconds, bytes, held) {
  const from = await fleet.spent()
  const share = rate / fleet.children.length
  const parts = await fleet.all('load', { prefix: `load${round}/`, rate: share, seconds, bytes })
  const end = Math.max(...parts.map((part) => part.at))
  const to = await fleet.spent()
  const written = parts.reduce((sum, part) => sum + part.written, 0)
  const done = await fleet.all('complete', { count: held + written, timeoutMs: 30_000 })
  const whole = done.every(({ at }) => at !== null)
  const behindMs = whole ? Math.max(0, Math.max(...done.map(({ at }) => at)) - end) : null
  const backlogged = parts.reduce((sum, part) => sum + part.backlogged, 0)
  return {
    rate,
    written,
    behindMs,
    backlogged,
    lateMs: Math.max(...parts.map((part) => part.lateMs)),
    lost: held + written - Math.min(...done.map(({ least }) => least)),
    kernelDrops: to.kernelDrops - from.kernelDrops,
    isSustained: whole && behindMs <= BEHIND_MS && backlogged === 0,
    ...fleet.rates(from, to),
  }
}

/**
 * All figures of one cluster of this size.
 *
 * @param {number} members
 * @param {{ processes: number, repetitions: number, apartMs: number, idleMs: number, seconds: number, rates: number[], say: (text: string) => void }} plan
 */
export async function measure(members, plan) {
  const fleet = await Fleet.start(members, Math.min(plan.processes, members))
  try {
    const { say } = plan
    say(`${members} members in ${fleet.children.length} processes joined in ${fleet.joinedMs.toFixed(0)} ms`)
    await fleet.all('listen', { prefix: PREFIX, topic: TOPIC })
    await sleep(plan.idleMs / 2)
    const before = await fleet.spent()
    await sleep(plan.idleMs)
    const idle = fleet.rates(before, await fleet.spent())
    say('idle measured')
    const update = await spread(fleet, plan.repetitions, plan.apartMs, (member, key) =>
      fleet.one(member, 'set', { key, bytes: 100 }),
    )
    say('updates measured')
    const broadcast = await spread(fleet, plan.repetitions, plan.apartMs, (member, key) =>
      fleet.one(member, 'broadcast', { topic: TOPIC, key, bytes: 100 }),
    )
    say('broadcasts measured')
    let held = plan.repetitions
    const ladder = []
    for (const [round, rate] of plan.rates.entries()) {
      const step = await load(fleet, round, rate, plan.seconds, 100, held)
      ladder.push(step)
      held += step.written
      say(
        `${rate} updates/s: ${step.isSustained ? 'sustained' : 'not sustained'}, last one ${step.behindMs?.toFixed(0)} ms behind`,
      )
      if (!step.isSustained) break
      await sleep(1_000)
    }
    return {
      members,
      processes: fleet.children.length,
      joinMs: fleet.joinedMs,
      idle,
      update,
      broadcast,
      ladder,
      sustained: ladder.filter((step) => step.isSustained).at(-1) ?? null,
    }
  } finally {
    await fleet.stop()
  }
}

/**
 * What one way costs on this machine at this hour: two members in two processes. `ownMs` is from `set` to the writer's own watcher
 * (JavaScript, driver thread, JavaScript), `otherMs` to the other member's.
 */
export async function calibrate(repetitions) {
  const fleet = await Fleet.start(2, 2)
  try {
    await fleet.all('listen', { prefix: PREFIX, topic: TOPIC })
    await sleep(500)
    const [own, other] = [[], []]
    for (let i = 0; i < repetitions; i++) {
      const key = `${PREFIX}${String(i).padStart(10, '0')}`
      const writer = i % 2
      const at = await fleet.one(writer, 'set', { key, bytes: 100 })
      const told = await fleet.all('arrivals', { key, timeoutMs: AT_MOST_MS })
      own.push(told[writer][0] - at)
      if (told[1 - writer].length > 0) other.push(told[1 - writer][0] - at)
      await sleep(100 + Math.random() * 50)
    }
    return { ownMs: quantile(own, 0.5), otherMs: quantile(other, 0.5), otherMsP90: quantile(other, 0.9) }
  } finally {
    await fleet.stop()
  }
}
