import { AbortError, fromNative, HearsayError, throwIfAborted } from './errors.js'
import { binding, type NativeSimulation } from './native.js'
import { checkSimulation } from './options.js'
import type { ClusterOptions } from './types.js'

/** What happens in a simulation, by kind, with what can be chosen. */
export interface SimulationScenarios {
  /** Random members write one key each, two seconds apart. */
  rumor: {
    /** Writes, 1..1000; default 20. */
    writes?: number | undefined
    /** Bytes of each value, 1..1048576; default 64. */
    valueBytes?: number | undefined
  }
  /** Random members broadcast, two seconds apart; all subscribe. */
  broadcast: {
    /** Broadcasts, 1..1000; default 20. */
    broadcasts?: number | undefined
    /** Bytes of each payload, 1..1048576; default 64. */
    payloadBytes?: number | undefined
  }
  /** Random members ask everybody, two seconds apart; all respond at once. */
  query: {
    /** Queries, 1..1000; default 20. */
    queries?: number | undefined
  }
  /** Random members crash and come back, one after the other. */
  crash: {
    /** Crashes, 1..1000; default 5. */
    crashes?: number | undefined
  }
  /** All members join through one. */
  join: {
    /** They start within this time, evenly, 1..600000; default 2000. */
    withinMs?: number | undefined
  }
  /** The cluster is cut in two, both sides write, the cut heals. */
  partition: {
    /** How long the cut lasts, 1..3600000; default 60000. */
    lastsMs?: number | undefined
    /** Share of the members on the smaller side, over 0, at most 0.5 (default). */
    share?: number | undefined
    /** Keys each side writes meanwhile, 0..10000; default 50. */
    keys?: number | undefined
  }
}

/** The name of a scenario. */
export type SimulationKind = keyof SimulationScenarios

/** Options of {@link simulate}. */
export interface SimulateOptions<K extends SimulationKind = SimulationKind> {
  /** Members, 2..2000. */
  members: number
  /** Seed of every choice, a whole number >= 0; default 1. The same options give the same figures. */
  seed?: number | undefined
  /** Probability that a datagram is lost, 0..0.95; default 0. Streams lose nothing, but wait for it. */
  loss?: number | undefined
  /** Probability that a datagram arrives twice, 0..0.95; default 0. */
  duplicate?: number | undefined
  /** Probability that a datagram is held back by up to 50 ms, 0..0.95; default 0. */
  reorder?: number | undefined
  /** Mean one-way delay of the network, 0..10000; default 0.3, in the profile `wan` 40. */
  delayMs?: number | undefined
  /** What happens. */
  scenario: { kind: K } & SimulationScenarios[K]
  /**
   * Options as of `Cluster.start`, checked as there, the same for every member. Profile, tags, whether there are keys, and all
   * settings of the protocol count; what names one member, a socket or a function has no meaning here.
   */
  config?: ClusterOptions | undefined
  /** Aborted: the simulation ends, the promise rejects with an `AbortError`. */
  signal?: AbortSignal | undefined
}

/** Times in milliseconds; null without values. Of fewer than a hundred values `p99` is the largest. */
export interface SimulatedTimes {
  count: number
  median: number | null
  p99: number | null
  max: number | null
  mean: number | null
}

/** What members send when nothing happens, sealing included, IP and UDP headers not. */
export interface SimulatedLoad {
  /** Per member. */
  bytesPerSecond: number
  /** Per member. */
  datagramsPerSecond: number
}

/** How writes or broadcasts reached the other members. */
export interface SimulatedSpread {
  /** Until half of the others had one. */
  halfMs: SimulatedTimes
  /** Until 99 % of them had it. */
  mostMs: SimulatedTimes
  /** Until all of them had it. */
  allMs: SimulatedTimes
  /** Those that some member had not after two seconds; anti-entropy brings them. */
  late: number
  /** Payload copies sent, per member and write. */
  copies: number
  /** Sent per member and write, beyond the idle load. */
  bytesPerWrite: number
  /** Sent per member and write, beyond the idle load. */
  datagramsPerWrite: number
  idle: SimulatedLoad
}

/** Figures of a simulation, by kind of scenario. */
export interface SimulationFigures {
  rumor: SimulatedSpread
  broadcast: SimulatedSpread
  query: {
    /** From the call until every member had answered. */
    allMs: SimulatedTimes
    /** Members that did not answer within two seconds, all queries together. */
    silent: number
    /** Sent per member and query, beyond the idle load. */
    bytesPerQuery: number
    idle: SimulatedLoad
  }
  crash: {
    /** From the crash to the first suspicion anywhere. */
    firstSuspicionMs: SimulatedTimes
    /** To the first death anywhere. */
    firstDeathMs: SimulatedTimes
    /** To the last member that learns of the death. */
    lastDeathMs: SimulatedTimes
    /** Deaths of members that had not crashed, in any view. */
    falseDeaths: number
    /** Crashes that some member had not noticed after a minute. */
    unnoticed: number
    idle: SimulatedLoad
  }
  join: {
    /** From the first start until every member knew all; null if not within a minute. */
    fullViewsMs: number | null
    /** From the first start until all roots were equal. */
    equalRootsMs: number | null
    /** Sent until then by the member all others joined through. */
    seedBytes: number
    /** Sent until then by a member, mean. */
    bytesPerMember: number
    /** Afterwards. */
    idle: SimulatedLoad
  }
  partition: {
    /** Members on the smaller side. */
    cut: number
    /** From the cut until each side had buried the other; null if it never did. */
    buriedMs: number | null
    /** From the heal until every member knew all; null if not within a minute. */
    fullViewsMs: number | null
    /** From the heal until all roots were equal. */
    equalRootsMs: number | null
    /** Sent from the heal until then by the busiest member. */
    busiestMemberBytes: number
    /** Most that any member sent in any second, IP and UDP headers included. */
    busiestSecondBytes: number
    /** Keys that some member did not have in the end. */
    keysLost: number
  }
}

/** What {@link simulate} gives. */
export interface Simulation<K extends SimulationKind = SimulationKind> {
  kind: K
  members: number
  seed: number
  loss: number
  /** Virtual time that passed. */
  simulatedMs: number
  /** Events simulated. */
  steps: number
  figures: SimulationFigures[K]
  /** Invariants of the protocol that were violated and ends that were missed; empty when all is well. */
  failures: string[]
}

/**
 * Runs one scenario with many members in virtual time: the real protocol, a simulated network, a thread of its own. Figures are
 * plain JSON and depend on the options alone. 1,000 members take seconds and some hundred megabytes. Rejects with
 * `ERR_HEARSAY_OPTION`, as `Cluster.start` for `config`, or with an `AbortError`.
 */
export async function simulate<K extends SimulationKind>(
  options: SimulateOptions<K>,
): Promise<Simulation<K>> {
  const { start, settings, signal } = checkSimulation(options)
  throwIfAborted(signal)
  return await new Promise((resolve, reject) => {
    let native: NativeSimulation | undefined
    const abort = (): void => {
      native?.stop()
      reject(new AbortError(signal?.reason))
    }
    const done = (figures: string | null | undefined): void => {
      // Until now this has kept the simulation from being collected.
      native = undefined
      signal?.removeEventListener('abort', abort)
      if (typeof figures === 'string') resolve(JSON.parse(figures) as Simulation<K>)
      else reject(new HearsayError('ERR_HEARSAY_INTERNAL', 'the simulation has failed'))
    }
    try {
      native = binding().NativeSimulation.start(start, settings, done)
      signal?.addEventListener('abort', abort, { once: true })
    } catch (error) {
      reject(fromNative(error))
    }
  })
}
