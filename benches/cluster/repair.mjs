// State: a full replica to newcomers, then few differing keys repaired by anti-entropy alone.
import { setTimeout as sleep } from 'node:timers/promises'
import { Fleet } from './fleet.mjs'

const MEMBERS = 5
export const KEY_BYTES = 12
export const VALUE_BYTES = 100
/** Of each entry beside key and value: two lengths, stamp, writer, flags. */
export const ENTRY_BYTES = 2 + 8 + 8 + 1
/** Rumors go cold within this, even on a slow machine. */
const COLD_MS = 20_000

/** Cuts or heals everything between one member and the others. */
async function cut(fleet, member, addresses) {
  const own = addresses[member]
  const others = addresses.filter((address) => address !== own)
  await Promise.all(
    fleet.children.map((child, i) => child.call('cut', { addresses: i === member ? others : [own] })),
  )
}

/** Waits until all members have the same root and nothing is hot. */
async function settled(fleet, timeoutMs = 30_000) {
  const end = performance.now() + timeoutMs
  while (performance.now() < end) {
    const roots = (await fleet.all('root')).flat()
    if (new Set(roots).size === 1 && (await fleet.spent()).hot === 0) return
    await sleep(50)
  }
  throw new Error(`roots differ or rumors are hot after ${timeoutMs} ms`)
}

/**
 * Writes keys on a member that is cut off, waits until the rumors of them are cold, heals, and waits until all have them.
 *
 * @param {Fleet} fleet
 * @param {string[]} addresses
 * @param {number} count
 * @param {{ bytesPerSecond: number, datagramsPerSecond: number }} idle
 */
async function differ(fleet, addresses, count, idle) {
  const prefix = `differ${count}/`
  await cut(fleet, 0, addresses)
  const written = await fleet.one(0, 'fill', { prefix, count, bytes: VALUE_BYTES })
  const end = performance.now() + COLD_MS
  while ((await fleet.one(0, 'spent')).hot > 0 && performance.now() < end) await sleep(20)
  const from = await fleet.spent()
  if (from.hot > 0) throw new Error('rumors do not go cold')
  const healed = Math.max(...(await fleet.all('heal')))
  const held = (await fleet.all('held', { prefix, count, timeoutMs: 60_000 })).flat()
  if (held.includes(null)) throw new Error(`${count} differing keys are not repaired after a minute`)
  const until = Math.max(...held)
  // What was on its way to members that had it by then belongs to the cost, too.
  await sleep(500)
  const to = await fleet.spent()
  const seconds = ((to.at - from.at) / 1_000) * MEMBERS
  const sent = (value) => to[value] - from[value]
  return {
    keys: count,
    cutMs: healed - written,
    repairedMs: until - healed,
    sinceWriteMs: until - written,
    datagrams: Math.round(sent('datagrams') - idle.datagramsPerSecond * seconds),
    bytes: Math.round(sent('datagramBytes') + sent('frameBytes') - idle.bytesPerSecond * seconds),
    syncBytes: sent('syncBytes'),
    sessions: sent('sessions'),
    floorBytes: count * (MEMBERS - 1) * (prefix.length + 8 + VALUE_BYTES + ENTRY_BYTES),
  }
}

/**
 * @param {{ keys: number, differing: number[], idleMs: number, say: (text: string) => void }} plan
 */
export async function measure({ keys, differing, idleMs, say }) {
  const fleet = await Fleet.start(1, 1)
  try {
    const prefix = 'key/'
    await fleet.one(0, 'fill', { prefix, count: keys, bytes: VALUE_BYTES })
    say(`${keys} keys written`)
    await sleep(4_000)
    const from = await fleet.spent()
    const began = await fleet.grow(MEMBERS - 1)
    const done = await fleet.all('complete', { count: keys, timeoutMs: 600_000 })
    if (done.some(({ at }) => at === null)) throw new Error('newcomers are not complete after ten minutes')
    const until = Math.max(...done.map(({ at }) => at))
    const to = await fleet.spent()
    const fill = {
      keys,
      ms: until - began,
      bytes: to.datagramBytes + to.frameBytes - from.datagramBytes - from.frameBytes,
      floorBytes: keys * (MEMBERS - 1) * (KEY_BYTES + VALUE_BYTES + ENTRY_BYTES),
      cpuMs: to.cpuMs - from.cpuMs,
    }
    say('newcomers are complete')
    await settled(fleet)
    await sleep(2_000)
    const quiet = await fleet.spent()
    await sleep(idleMs)
    const idle = fleet.rates(quiet, await fleet.spent())
    const addresses = (await fleet.all('addresses')).flat()
    const repairs = []
    for (const count of differing) {
      repairs.push(await differ(fleet, addresses, count, idle))
      say(`${count} differing keys are repaired`)
      await settled(fleet)
      await sleep(2_000)
    }
    return { members: MEMBERS, processes: MEMBERS, idle, fill, repairs }
  } finally {
    await fleet.stop()
  }
}
