// A child process of the cluster bench: some members, driven by the parent over IPC. Times are of the monotonic clock that all
// processes of a machine share, in ms.
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster } from '../../dist/index.js'
import { faults } from '../../dist/testing.js'

const now = () => Number(process.hrtime.bigint()) / 1e6

/** @type {Cluster[]} */
const members = []
/** Times at which members of this process were told of something. */
const told = new Map()
let lagged = 0

function note(key) {
  const times = told.get(key)
  if (times === undefined) told.set(key, [now()])
  else times.push(now())
}

/** Arrivals of another member's heartbeats: phi falls when one comes. One list per member of this process. */
const beats = new Map()
let sampling

function sample() {
  for (const [member, seen] of beats) {
    const phi = member.phi(seen.of) ?? 0
    if (phi < seen.phi) seen.times.push(now())
    seen.phi = phi
  }
}

async function watch(member, prefix) {
  for await (const change of member.state.watch(prefix)) note(change.key)
}

/** Waits until `done` holds, looking each `everyMs`; the time at which it held, or null. */
async function until(done, timeoutMs, everyMs = 2) {
  const end = now() + timeoutMs
  for (;;) {
    if (done()) return now()
    if (now() > end) return null
    await sleep(everyMs)
  }
}

const calls = {
  async start({ first, count, seeds, options }) {
    const started = await Promise.all(
      Array.from({ length: count }, (_, i) =>
        Cluster.start({ codec: 'bytes', ...options, name: `m${first + i}`, seeds }),
      ),
    )
    members.push(...started)
    for (const member of started) member.on('lagged', ({ dropped }) => (lagged += dropped))
    return started.map((member) => member.self.address)
  },

  async full({ count, timeoutMs }) {
    await Promise.all(members.map((member) => member.waitFor({ members: count, timeoutMs })))
    return now()
  },

  listen({ prefix, topic }) {
    for (const member of members) {
      void watch(member, prefix)
      member.subscribe(topic, (payload) => note(Buffer.from(payload).toString('latin1', 0, 12)))
    }
  },

  set({ member, key, bytes }) {
    const at = now()
    members[member].state.set(key, Buffer.alloc(bytes, key))
    return at
  },

  broadcast({ member, topic, key, bytes }) {
    const payload = Buffer.alloc(bytes, '.')
    payload.write(key.padEnd(12), 0, 'latin1')
    const at = now()
    members[member].broadcast(topic, payload)
    return at
  },

  /** When each member of this process was told of a key; fewer at the timeout. */
  async arrivals({ key, timeoutMs }) {
    await until(() => (told.get(key)?.length ?? 0) >= members.length, timeoutMs)
    const times = told.get(key) ?? []
    told.delete(key)
    return times
  },

  /** What the members of this process have sent so far, and what the process has cost. */
  spent() {
    const { user, system } = process.cpuUsage()
    const sum = {
      datagrams: 0,
      datagramBytes: 0,
      frameBytes: 0,
      syncBytes: 0,
      sessions: 0,
      backlogAgeMs: 0,
      hot: 0,
      kernelDrops: 0,
    }
    for (const member of members) {
      const { traffic, antiEntropy, rumors, dropped } = member.metrics()
      sum.datagrams += traffic.datagramsSent
      sum.datagramBytes += traffic.bytesSent
      sum.frameBytes += traffic.frameBytesSent
      sum.syncBytes += antiEntropy.bytesSent
      sum.sessions += antiEntropy.sessions
      sum.backlogAgeMs = Math.max(sum.backlogAgeMs, rumors.backlogAgeMs)
      sum.hot += rumors.hot
      sum.kernelDrops += dropped.kernel ?? 0
    }
    return { at: now(), cpuMs: (user + system) / 1_000, lagged, ...sum }
  },

  /** Writes at a steady rate, whatever the members do with it: each write has its time before the run begins. */
  async load({ prefix, rate, seconds, bytes }) {
    const value = Buffer.alloc(bytes, 'x')
    const [from, count] = [now(), Math.round(rate * seconds)]
    let [written, backlogged, lateMs] = [0, 0, 0]
    while (written < count) {
      const due = Math.min(count, Math.floor(((now() - from) * rate) / 1_000) + 1)
      if (written < due) lateMs = Math.max(lateMs, now() - from - (written * 1_000) / rate)
      for (; written < due; written++) {
        const { state } = members[written % members.length]
        if (state.set(`${prefix}${process.pid}/${written}`, value).backlogged) backlogged++
      }
      await sleep(2)
    }
    return { written, backlogged, lateMs, at: now() }
  },

  /** Writes many keys at once. */
  async fill({ prefix, count, bytes }) {
    for (let i = 0; i < count; i++) {
      members[0].state.set(`${prefix}${String(i).padStart(8, '0')}`, Buffer.alloc(bytes, String(i)))
      if (i % 1_000 === 999) await sleep(1)
    }
    return now()
  },

  /** When all members of this process held so many keys; null at the timeout, and how many the emptiest has. */
  async complete({ count, timeoutMs }) {
    const at = await until(() => members.every(({ state }) => state.size >= count), timeoutMs)
    return { at, least: Math.min(...members.map(({ state }) => state.size)) }
  },

  /** When all members of this process held these keys; null at the timeout. */
  async held({ prefix, count, timeoutMs }) {
    const missing = members.map(() => count)
    const done = () =>
      members.every(({ state }, i) => {
        while (missing[i] > 0 && state.has(`${prefix}${String(missing[i] - 1).padStart(8, '0')}`))
          missing[i]--
        return missing[i] === 0
      })
    return await until(done, timeoutMs, 1)
  },

  root() {
    return members.map((member) => member.root())
  },

  /** Notes when heartbeats of that member arrive at each member of this process, to a few ms. */
  observe({ name }) {
    sampling ??= setInterval(sample, 2)
    for (const member of members) {
      member.observe(name)
      beats.set(member, { of: name, phi: 0, times: [] })
    }
  },

  /** Times between these heartbeats, of those that arrived since the last call. */
  gaps() {
    const gaps = [...beats.values()].flatMap(({ times }) => times.slice(1).map((at, i) => at - times[i]))
    for (const seen of beats.values()) seen.times.splice(0, seen.times.length - 1)
    return gaps
  },

  addresses() {
    return members.map((member) => member.self.address)
  },

  cut({ addresses }) {
    for (const member of members) faults(member).cut(addresses)
  },

  heal() {
    for (const member of members) faults(member).heal()
    return now()
  },

  async stop() {
    clearInterval(sampling)
    await Promise.all(members.map((member) => member.stop()))
    setImmediate(() => process.disconnect())
  },
}

process.on('message', async ({ id, call, args }) => {
  try {
    process.send({ id, result: await calls[call](args ?? {}) })
  } catch (error) {
    process.send({ id, error: String(error?.stack ?? error) })
  }
})
process.on('disconnect', () => process.exit(0))
