// One member in a process of its own, driven by its parent over IPC: { id, call, args } -> { id, value } or { id, error }.
import { Cluster } from '../../dist/index.js'
import { faults } from '../../dist/testing.js'

let cluster
/** Times at which this process saw what, by kind and name: wall-clock ms, one clock for all processes of the machine. */
let seen = { members: [], changes: [], healed: [] }

const calls = {
  async start(options) {
    cluster = await Cluster.start(options)
    for (const type of [
      'memberJoined',
      'memberSuspected',
      'memberRefuted',
      'memberDied',
      'memberLeft',
      'memberRevived',
    ]) {
      cluster.on(type, (member) => seen.members.push({ at: Date.now(), type, name: member.name }))
    }
    cluster.on('partitionHealed', (healed) => seen.healed.push({ at: Date.now(), ...healed }))
    watch().catch(() => {})
    return { address: cluster.self.address, pid: process.pid }
  },
  view() {
    return {
      members: cluster.members({ liveness: 'all' }).map(({ name, liveness }) => ({ name, liveness })),
      size: cluster.size,
      address: cluster.self.address,
      addresses: cluster.members().map(({ name, address }) => `${name}@${address}`),
      root: cluster.root(),
      keys: cluster.state.size,
    }
  },
  phi(name) {
    const phi = cluster.phi(name)
    return phi === Number.POSITIVE_INFINITY ? 'infinity' : phi
  },
  set(entries) {
    const at = Date.now()
    for (const [key, value] of entries) {
      cluster.state.set(key, value)
    }
    return { at }
  },
  get(keys) {
    return keys.map((key) => cluster.state.get(key) ?? null)
  },
  seen() {
    const result = seen
    seen = { members: [], changes: [], healed: [] }
    return result
  },
  metrics() {
    return cluster.metrics()
  },
  cut(addresses) {
    faults(cluster).cut(addresses)
  },
  heal() {
    faults(cluster).heal()
  },
  idle() {
    const { bytesSent, frameBytesSent, datagramsSent } = cluster.metrics().traffic
    return { at: Date.now(), bytes: bytesSent + frameBytesSent, datagrams: datagramsSent }
  },
  async leave() {
    await cluster.leave()
  },
  async stop() {
    await cluster?.stop()
  },
}

async function watch() {
  for await (const change of cluster.state.watch('')) {
    seen.changes.push({ at: Date.now(), type: change.type, key: change.key })
  }
}

process.on('message', async ({ id, call, args }) => {
  try {
    process.send({ id, value: await calls[call](...args) })
  } catch (error) {
    process.send({ id, error: `${error?.code ?? ''} ${error?.message ?? error}`.trim() })
  }
})
// What a service does: it leaves, and others need not find out.
process.once('SIGTERM', async () => {
  await cluster?.leave().catch(() => {})
  process.exit(0)
})
// A demo that was killed leaves no member behind.
process.on('disconnect', () => process.exit(0))
process.send({ ready: true })
