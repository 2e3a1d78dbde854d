// Members spread over child processes, and calls to all of them.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const CHILD = fileURLToPath(new URL('./members.mjs', import.meta.url))

class Child {
  #next = 0
  #waiting = new Map()

  constructor() {
    this.process = fork(CHILD, { serialization: 'advanced' })
    this.process.on('message', ({ id, result, error }) => {
      const { resolve, reject } = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error === undefined) resolve(result)
      else reject(new Error(error))
    })
    this.process.on('exit', (code) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`a child ended with code ${code}`))
      this.#waiting.clear()
    })
  }

  call(call, args) {
    return new Promise((resolve, reject) => {
      const id = this.#next++
      this.#waiting.set(id, { resolve, reject })
      this.process.send({ id, call, args })
    })
  }
}

/** A cluster on loopback. Members 0, 1, ... are spread evenly over the processes. */
export class Fleet {
  children = []
  counts = []
  members = 0

  /**
   * Starts this many members in this many processes and waits for full views.
   *
   * @param {number} members
   * @param {number} processes
   * @param {object} [options] of `Cluster.start`
   */
  static async start(members, processes, options = {}) {
    const fleet = new Fleet()
    fleet.members = members
    fleet.began = Number(process.hrtime.bigint()) / 1e6
    let seeds = []
    for (let i = 0; i < processes; i++) {
      const child = new Child()
      fleet.children.push(child)
      const count = Math.floor(members / processes) + (i < members % processes ? 1 : 0)
      const first = fleet.counts.reduce((a, b) => a + b, 0)
      fleet.counts.push(count)
      if (i === 0) {
        const [seed] = await child.call('start', { first, count: 1, seeds, options })
        seeds = [seed]
        fleet.began = Number(process.hrtime.bigint()) / 1e6
        if (count > 1) await child.call('start', { first: first + 1, count: count - 1, seeds, options })
      }
    }
    fleet.seeds = seeds
    await Promise.all(
      fleet.children.map(async (child, i) => {
        const first = fleet.counts.slice(0, i).reduce((a, b) => a + b, 0)
        if (i > 0) await child.call('start', { first, count: fleet.counts[i], seeds, options })
      }),
    )
    const full = await fleet.all('full', { count: members, timeoutMs: 60_000 })
    fleet.joinedMs = Math.max(...full) - fleet.began
    return fleet
  }

  /** Starts so many more members, each in a process of its own; the time at which they began. */
  async grow(members, options = {}) {
    const added = Array.from({ length: members }, () => new Child())
    // The processes are up before the time runs.
    await Promise.all(added.map((child) => child.call('root')))
    const first = this.members
    this.children.push(...added)
    this.counts.push(...added.map(() => 1))
    this.members += members
    const began = Number(process.hrtime.bigint()) / 1e6
    await Promise.all(
      added.map((child, i) =>
        child.call('start', { first: first + i, count: 1, seeds: this.seeds, options }),
      ),
    )
    return began
  }

  /** Calls every process. */
  all(call, args) {
    return Promise.all(this.children.map((child) => child.call(call, args)))
  }

  /** Calls the process of one member. */
  one(member, call, args) {
    let [child, index] = [0, member]
    while (index >= this.counts[child]) index -= this.counts[child++]
    return this.children[child].call(call, { ...args, member: index })
  }

  /** What all members together have sent and cost. */
  async spent() {
    const parts = await this.all('spent')
    const sum = parts.reduce((a, b) =>
      Object.fromEntries(Object.keys(a).map((key) => [key, key === 'at' ? a.at : a[key] + b[key]])),
    )
    return { ...sum, backlogAgeMs: Math.max(...parts.map((part) => part.backlogAgeMs)) }
  }

  /** What one member has sent and cost per second between two looks. */
  rates(from, to) {
    const seconds = (to.at - from.at) / 1_000
    const each = (value) => (to[value] - from[value]) / seconds / this.members
    return {
      bytesPerSecond: each('datagramBytes') + each('frameBytes'),
      datagramsPerSecond: each('datagrams'),
      cpuMsPerSecond: each('cpuMs'),
    }
  }

  async stop() {
    await this.all('stop').catch(() => {})
    for (const child of this.children) child.process.kill()
  }
}
