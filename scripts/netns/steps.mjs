// What is done to a cluster of processes in network namespaces. Each step returns its figures, or throws.
import { setTimeout as sleep } from 'node:timers/promises'
import { MemberProcess } from '../demo/process.mjs'
import { Net } from './net.mjs'

const PORT = 7946
const LOOK_MS = 20
/** IPv4 and UDP headers. */
const DATAGRAM_OVERHEAD = 28
/** Traffic is back to this multiple of what it was before the split, within half a minute of the heal. */
const IDLE_AGAIN = 1.5
const IDLE_WITHIN_MS = 30_000

function check(condition, message) {
  if (!condition) throw new Error(message)
}

async function until(what, timeoutMs, probe) {
  const start = performance.now()
  for (;;) {
    const found = await probe()
    if (found === true) return Math.round(performance.now() - start)
    check(performance.now() - start < timeoutMs, `${what}: not within ${timeoutMs} ms (${found || 'no'})`)
    await sleep(LOOK_MS)
  }
}

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0)
const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i)

/** Processes in namespaces, by index; one that ended leaves a gap. */
export class Cluster {
  members = []

  constructor(count, { profile = 'lan', idleMs = 5_000, spare = 0 } = {}) {
    this.count = count
    this.profile = profile
    this.idleMs = idleMs
    this.net = new Net(count + spare)
  }

  async start(index, name = `m${index}`, options = {}) {
    const seeds = [0, 1, 2].filter((seed) => seed !== index).map((seed) => `${this.net.ip(seed)}:${PORT}`)
    const all = { cluster: 'netns', bind: `${this.net.ip(index)}:${PORT}`, profile: this.profile, ...options }
    const member = await MemberProcess.start(name, seeds, all, this.net.launcher(index))
    this.members[index] = member
    return member
  }

  get up() {
    return this.members.filter((member) => member !== undefined)
  }

  /** The view of each running member of these indices, by default of all. */
  views(indices) {
    const members = indices === undefined ? this.up : indices.map((index) => this.members[index])
    return Promise.all(members.map((member) => member.call('view')))
  }

  /** Equal views of all running members, and equal roots. */
  async whole(what, timeoutMs = 60_000) {
    const expected = this.up
      .map((member) => member.name)
      .sort()
      .join()
    const names = (view) =>
      view.members
        .filter((m) => m.liveness === 'alive')
        .map((m) => m.name)
        .sort()
        .join()
    const start = performance.now()
    const viewsMs = await until(`${what}: equal views`, timeoutMs, async () => {
      const differs = (await this.views()).find((view) => names(view) !== expected)
      return differs === undefined || `one view has ${names(differs)}`
    })
    await until(`${what}: equal roots`, timeoutMs, async () => {
      const views = await this.views()
      return views.every((view) => view.root === views[0].root && view.keys === views[0].keys)
    })
    return { viewsMs, rootsMs: Math.round(performance.now() - start) }
  }

  /** Forgets what the members have told so far. */
  async forget() {
    await Promise.all(this.up.map((member) => member.call('seen')))
  }

  /** Bytes on the wire per member and second over a while. */
  async rate() {
    const look = () => Promise.all(this.up.map((member) => member.call('idle')))
    const before = await look()
    await sleep(this.idleMs)
    const after = await look()
    const rates = after.map((now, i) => {
      const bytes = now.bytes - before[i].bytes + DATAGRAM_OVERHEAD * (now.datagrams - before[i].datagrams)
      return (bytes / (now.at - before[i].at)) * 1000
    })
    return sum(rates) / rates.length
  }

  /** Until traffic is again what it was; from `healed` on, ms. */
  async idleAgain(before, healed) {
    for (;;) {
      const rate = await this.rate()
      const ms = Math.round(performance.now() - healed - this.idleMs)
      if (rate <= IDLE_AGAIN * before)
        return { idleAgainMs: Math.max(0, ms), bytesPerSecond: Math.round(rate) }
      check(ms <= IDLE_WITHIN_MS, `traffic is ${Math.round(rate)} B/s, it was ${Math.round(before)}`)
    }
  }

  async write(index, keys) {
    await this.members[index].call(
      'set',
      keys.map((key) => [key, `m${index} wrote this value ${'x'.repeat(60)}`]),
    )
  }

  /** Ends a member's process by this means, and waits for the process. */
  async end(index, how) {
    const member = this.members[index]
    this.members[index] = undefined
    if (how === 'kill') await member.kill()
    else if (how === 'term') {
      member.child.kill('SIGTERM')
      await member.exited
    } else {
      await member.call(how)
      await member.end()
    }
  }

  async close() {
    for (const member of this.up) member.child.kill('SIGKILL')
    await Promise.all(this.up.map((member) => member.exited))
    this.net.close()
  }

  /** For exit handlers. */
  drop() {
    for (const member of this.up) member.child.kill('SIGKILL')
    this.net.close()
  }
}

/** All start; `restMs`: the sessions and ticks of the start are over then. */
export async function join(cluster, { restMs = 0 } = {}) {
  const start = performance.now()
  await cluster.start(0)
  await Promise.all(range(1, cluster.count).map((index) => cluster.start(index)))
  const { viewsMs } = await cluster.whole('join')
  const startedAndWholeMs = Math.round(performance.now() - start)
  await sleep(restMs)
  return { processes: cluster.count, startedAndWholeMs, viewsMs }
}

/**
 * Halves for `ms`, keys written on both sides, then the heal. `oneWay`: the second half hears nothing of the first. `buried`: not
 * before each side holds the other dead. `account`: waits for `partitionHealed` of all.
 */
export async function split(cluster, { ms, keys = 200, oneWay = false, buried = false, account = false }) {
  const [a, b] = [
    range(0, Math.floor(cluster.count / 2)),
    range(Math.floor(cluster.count / 2), cluster.count),
  ]
  const before = await cluster.rate()
  await cluster.forget()
  const start = performance.now()
  if (oneWay) cluster.net.cut(a, b)
  else cluster.net.partition(a, b)
  await cluster.write(a[0], [...range(0, keys).map((n) => `a/${start}/${n}`), `both/${start}`])
  await cluster.write(b[0], [...range(0, keys).map((n) => `b/${start}/${n}`), `both/${start}`])
  let buriedMs = null
  if (buried) {
    const alone = (own) => (view) => view.size === own.length
    buriedMs = await until('each side buries the other', 75_000, async () => {
      return (await cluster.views(a)).every(alone(a)) && (await cluster.views(b)).every(alone(b))
    })
  }
  await sleep(Math.max(0, ms - (performance.now() - start)))
  cluster.net.heal()
  const healed = performance.now()
  const { viewsMs, rootsMs } = await cluster.whole('heal')
  const [{ keys: size }] = await cluster.views([0])
  const idle = await cluster.idleAgain(before, healed)
  const told = []
  if (account) {
    const from = performance.now()
    // The account of a heal is closed when roots have been equal for a while, after half a minute at the latest.
    while (told.length < cluster.count && performance.now() - from < 35_000) {
      const seen = await Promise.all(cluster.up.map((member) => member.call('seen')))
      told.push(...seen.flatMap((s) => s.healed))
      if (told.length < cluster.count) await sleep(200)
    }
    check(told.length === cluster.count, `partitionHealed was told ${told.length} times`)
    // Each account is that member's own: one that got all it lacked as rumors had no session to pay for.
    check(
      told.every((t) => t.members.length > 0) && sum(told.map((t) => t.bytes)) > 0,
      `an account of the heal is empty: ${JSON.stringify(told)}`,
    )
  }
  return {
    splitMs: ms,
    buriedMs,
    viewsMs,
    rootsMs,
    keys: size,
    idleBefore: Math.round(before),
    ...idle,
    healed: told.length && {
      members: told[0].members.length,
      keysReceived: sum(told.map((t) => t.keysReceived)),
      keysSent: sum(told.map((t) => t.keysSent)),
      bytes: sum(told.map((t) => t.bytes)),
      durationMsMax: Math.max(...told.map((t) => t.durationMs)),
    },
  }
}

export async function loss(cluster, { share, ms }) {
  await cluster.forget()
  cluster.net.loss(share)
  const from = performance.now()
  await sleep(ms / 2)
  const key = `loss/${from}`
  await cluster.write(0, [key])
  const updateMs = await until('an update everywhere', 20_000, async () => {
    const values = await Promise.all(cluster.up.map((member) => member.call('get', [key])))
    return values.every(([value]) => value !== null)
  })
  await sleep(Math.max(0, ms - (performance.now() - from)))
  cluster.net.loss(0)
  const seen = await Promise.all(cluster.up.map((member) => member.call('seen')))
  const deaths = seen.flatMap((s) => s.members).filter((m) => m.type === 'memberDied').length
  check(deaths === 0, `${deaths} deaths were told of living members`)
  return { loss: share, ms, updateMs, falseDeaths: deaths, ...(await cluster.whole('after loss')) }
}

/** Members end by these means in this order, then start again under their names. */
export async function ends(cluster, order) {
  await cluster.forget()
  const gone = order.map((how, i) => ({ how, index: cluster.count - 1 - i }))
  const start = performance.now()
  for (const { how, index } of gone) await cluster.end(index, how)
  const left = { leave: 'left', term: 'left', stop: 'dead', kill: 'dead' }
  const knownMs = {}
  for (const { how, index } of gone) {
    await until(`m${index} after ${how}`, 30_000, async () => {
      const states = (await cluster.views()).map(
        (v) => v.members.find((m) => m.name === `m${index}`)?.liveness,
      )
      return states.every((state) => state === left[how]) || `held ${states}`
    })
    knownMs[`${how} m${index}`] = Math.round(performance.now() - start)
  }
  await Promise.all(gone.map(({ index }) => cluster.start(index)))
  const { viewsMs, rootsMs } = await cluster.whole('started again')
  return { order: order.join(), knownMs, againViewsMs: viewsMs, againRootsMs: rootsMs }
}

export async function suspend(cluster, { ms, mayDie }) {
  await cluster.forget()
  const index = cluster.count - 1
  const { child, name } = cluster.members[index]
  child.kill('SIGSTOP')
  await sleep(ms)
  child.kill('SIGCONT')
  const whole = await cluster.whole('continued')
  const seen = await Promise.all(cluster.up.map((member) => member.call('seen')))
  const died = seen.flatMap((s) => s.members).filter((m) => m.type === 'memberDied')
  check(mayDie || died.length === 0, `a stop of ${ms} ms was taken for a death`)
  const healthy = died.filter((m) => m.name !== name)
  check(healthy.length === 0, `${healthy.map((m) => m.name)} were declared dead, who had not stopped`)
  return {
    stoppedMs: ms,
    declaredDeadBy: died.filter((m) => m.name === name).length,
    healthyDeclaredDead: healthy.length,
    ...whole,
  }
}

/** The process ends, and another one of its name starts at another address. */
export async function elsewhere(cluster) {
  const index = cluster.count - 1
  await cluster.end(index, 'kill')
  cluster.net.move(index)
  await cluster.start(index)
  const whole = await cluster.whole('elsewhere')
  return { address: cluster.members[index].address, ...whole }
}

/** A running member's address changes under it; it is bound to all addresses and notices within ten seconds. */
export async function moved(cluster) {
  const index = cluster.count - 1
  await cluster.end(index, 'leave')
  await cluster.start(index, undefined, { bind: `0.0.0.0:${PORT}` })
  await cluster.whole('bound to all addresses')
  cluster.net.move(index)
  const address = `m${index}@${cluster.net.ip(index)}:${PORT}`
  const knownMs = await until('the new address everywhere', 40_000, async () => {
    return (await cluster.views()).every((view) => view.addresses.includes(address))
  })
  return { address, knownMs, ...(await cluster.whole('moved')) }
}
