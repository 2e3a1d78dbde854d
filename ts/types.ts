/** What is believed of a member. */
export type Liveness = 'alive' | 'suspect' | 'dead' | 'left'

/** One member as this cluster's view holds it; a snapshot that does not change. */
export interface Member {
  /** Random id of this run of the member, 16 hex digits. */
  readonly id: string
  /** Name, unique in the cluster. */
  readonly name: string
  /** Which run of the name this is; a later run has a higher one. */
  readonly generation: number
  /** Raised by the member itself to refute a suspicion and to leave. */
  readonly incarnation: number
  /** `host:port` where others reach it. */
  readonly address: string
  /** Its tags. */
  readonly tags: Readonly<Record<string, string>>
  /** What is believed of it. */
  readonly liveness: Liveness
  /** The tag `zone`, or null. */
  readonly zone: string | null
}

/** A logger of pino's shape. Levels that are missing are silent. */
export interface Logger {
  /** What a developer of hearsay wants to know. */
  debug?(fields: object, message: string): void
  /** What happens now and then. */
  info?(fields: object, message: string): void
  /** What may want attention. */
  warn?(fields: object, message: string): void
  /** What went wrong and nobody else was told of. */
  error?(fields: object, message: string): void
}

/** Turns values into bytes and back. `encode` may throw; `decode` gets exactly the bytes `encode` gave. */
export interface ValueCodec {
  /** The bytes of a value. */
  encode(value: unknown): Uint8Array
  /** The value of what `encode` gave. */
  decode(bytes: Uint8Array): unknown
}

/** How values travel: as JSON (default), as bytes (`Uint8Array` in and out), or by a codec of your own. */
export type Codec = 'json' | 'bytes' | ValueCodec

/** Model of the time between heartbeats: the paper's normal distribution, Cassandra's exponential, or Pekko's logistic. */
export type PhiModel = 'normal' | 'exponential' | 'pekko'

/** Demers' loss of interest: a rumor grows cold after contacts that were unnecessary (`feedback`), or after any contact. */
export interface RumorInterest {
  /** Count only contacts whose peers knew the rumor already. */
  feedback: boolean
  /** `coin`: cold with probability 1/k at each counted tick. `counter`: after k of them (with feedback: k in a row). */
  loss: 'coin' | 'counter'
  /** 1..255. */
  k: number
}

/** Options of `Cluster.start`. Every one has a default; durations are milliseconds. */
export interface ClusterOptions {
  /** 1..128 bytes of printable UTF-8, unique in the cluster. Default `<hostname>-<random>`. */
  name?: string | undefined
  /** Label: packets of other clusters are dropped and counted. At most 255 bytes. Default `''`. */
  cluster?: string | undefined
  /** UDP and TCP on one port. Default `127.0.0.1:0`; port 0 picks one. */
  bind?: string | undefined
  /** `host:port` others should use. Default: the bound or outward address. */
  advertise?: string | undefined
  /** Members to ask first, `host:port`, or a function that gives them. */
  seeds?: readonly string[] | (() => readonly string[] | Promise<readonly string[]>) | undefined
  /** At most 512 bytes encoded (two bytes per tag and its UTF-8). */
  tags?: Readonly<Record<string, string>> | undefined
  /** Keys of 32 bytes, as `Uint8Array` or base64; the first seals, all open. Without: a checksum only. */
  keys?: readonly (Uint8Array | string)[] | undefined
  /** Presets for one machine, one data centre (default), several regions. */
  profile?: 'local' | 'lan' | 'wan' | undefined
  /** How rumors spread. */
  gossip?:
    | {
        /** Payloads pushed while young, then ids (default); payloads only; ids only. Claims about members are pushed in each. */
        mode?: 'push-pull' | 'push' | 'pull' | undefined
        /** Tick period while something is hot, 10..60000; default 200. */
        intervalMs?: number | undefined
        /** Peers per tick, 1..16; default 3. */
        fanout?: number | undefined
        /** When a rumor grows cold: after ceil(ln N / 3) + 1 ticks (`adaptive`, default), or as Demers et al. 1987 have it. */
        rumor?: 'adaptive' | RumorInterest | undefined
      }
    | undefined
  /** The failure detector. */
  failureDetector?:
    | {
        /**
         * Default `normal`: phi(t) = -log10(1 - F((t - mean) / max(stdDev, minStdDevMs))), F the normal distribution (Hayashibara
         * et al. 2004, V-B). `exponential`: t / (mean ln 10). `pekko`: normal with that project's logistic approximation of F.
         */
        model?: PhiModel | undefined
        /**
         * Phi at which silence starts a probe, > 0; default 8. As a time, normal model: mean + z max(stdDev, minStdDevMs), z =
         * 5.612 for 8, so 2.56 s by default.
         */
        threshold?: number | undefined
        /** Intervals whose mean and population deviation the model takes, 2..10000; default 64. */
        windowSize?: number | undefined
        /**
         * Beat period h, 50..600000; default 2000. Of w watchers the first accuses about limit - h w / (w + 1) + probe time after
         * a crash.
         */
        heartbeatIntervalMs?: number | undefined
        /** Members each one chooses to watch, 1..16; default 2. Both ends watch, so each has about twice as many watchers. */
        partners?: number | undefined
        /** Floor of the deviation, 0..600000; default 100. */
        minStdDevMs?: number | undefined
        /**
         * Rounds of direct and relayed pings before an accusation, 1..20; default 5. Probe time = rounds x clamp(2 srtt + 4 rttvar,
         * 100, 250 ms), the smoothed round trip and its variation as in RFC 6298.
         */
        probeRounds?: number | undefined
        /**
         * Time a suspect has to refute, 100..3600000; default 4000 (local 2000, wan 8000), twice that while only one member
         * accuses it. All know of a crash about 1.5 s + patienceMs after it.
         */
        patienceMs?: number | undefined
        /** Up to this many living members every pair watches each other, 0..64; default 8. */
        observeAllUpTo?: number | undefined
      }
    | undefined
  /** Anti-entropy. */
  antiEntropy?:
    | {
        /** Entries younger than this are not compared; whole seconds, 1000..60000; default 3000. */
        settleMs?: number | undefined
        /** Time between a difference and its confirmation, 100..60000; default 1000. */
        confirmMs?: number | undefined
      }
    | undefined
  /** The budget of this member. */
  bandwidth?:
    | {
        /** Bytes sent per second, IPv4 and UDP headers included, >= 10000; default 256000. */
        bytesPerSecondMax?: number | undefined
      }
    | undefined
  /** How state values and payloads travel; every member of a cluster must use the same. Default `json`. */
  codec?: Codec | undefined
  /** Silent by default. */
  logger?: Logger | undefined
  /**
   * A store on disk: generation and replica survive a restart, members met are found again without seeds. Without: memory only.
   */
  storage?:
    | {
        /** A folder of this member's own, made if it is not there; one running member at a time may use it. */
        path: string
      }
    | undefined
  /** Time dead and left members are remembered, >= 1000; default 86400000. */
  forgetDeadAfterMs?: number | undefined
  /** Lifetime of broadcasts, 1000..3600000; default 60000. */
  broadcastRetentionMs?: number | undefined
  /** Longest time `start` and `join` wait for the seeds, 10..600000; default 1000. */
  joinTimeoutMs?: number | undefined
  /** Sizes and counts. */
  limits?: Limits | undefined
  /** Aborted during start: start rejects. Aborted later: the cluster stops. */
  signal?: AbortSignal | undefined
}

/** Sizes and counts a member holds itself and its callers to. */
export interface Limits {
  /** Living, dead and left members, 2..65535; default 16384. */
  membersMax?: number | undefined
  /** Longest key, 1..512; default 512. */
  keyBytesMax?: number | undefined
  /** Longest encoded value, payload or answer, 1..16777216; default 1048576. */
  valueBytesMax?: number | undefined
  /** Entries in the replica, tombstones included, >= 1; default 16000000. */
  entriesMax?: number | undefined
  /** Bytes of keys and values in the replica, >= 1024; default 4294967296. */
  storeBytesMax?: number | undefined
  /** Bytes of a datagram, 1200..65000; default 1400 (wan 1232). */
  datagramBytesMax?: number | undefined
}

/**
 * Types of what a cluster holds. `state` maps key patterns to values, with template literals as patterns:
 * `interface Schema { state: { [key: `flags/${string}`]: { on: boolean }; leader: string } }`. `topics` maps topics to payloads of
 * `broadcast` and `send`, `queries` topics to functions: `{ 'disk-free': (payload: { path: string }) => number }`.
 */
export interface SchemaShape {
  state?: object
  topics?: object
  queries?: object
}

/** The schema of a cluster that was given none: every key holds `unknown`. */
export interface AnySchema {
  state: { [key: string]: unknown }
  topics: { [topic: string]: unknown }
  /** Any topic asks and answers anything. */
  queries: Record<string, (payload: unknown) => unknown>
}

/** The state part of a schema. */
export type StateOf<S extends SchemaShape> = S extends { state: infer T extends object }
  ? T
  : AnySchema['state']

/** The keys of a schema's state. */
export type KeyOf<S extends SchemaShape> = Extract<keyof StateOf<S>, string>

/** The value a key of a schema's state holds. */
export type ValueOf<S extends SchemaShape, K extends string> = K extends keyof StateOf<S>
  ? StateOf<S>[K]
  : unknown

/** The topics part of a schema. */
export type TopicsOf<S extends SchemaShape> = S extends { topics: infer T extends object }
  ? T
  : AnySchema['topics']

/** The topics of a schema. */
export type TopicOf<S extends SchemaShape> = Extract<keyof TopicsOf<S>, string>

/** What is said under a topic. */
export type PayloadOf<S extends SchemaShape, T extends string> = T extends keyof TopicsOf<S>
  ? TopicsOf<S>[T]
  : unknown

/** The queries part of a schema. */
export type QueriesOf<S extends SchemaShape> = S extends { queries: infer T extends object }
  ? T
  : AnySchema['queries']

/** The topics of a schema's queries. */
export type QueryOf<S extends SchemaShape> = Extract<keyof QueriesOf<S>, string>

type QueryFunction<S extends SchemaShape, T extends string> = T extends keyof QueriesOf<S>
  ? QueriesOf<S>[T]
  : unknown

/** What a query says. */
export type QueryPayloadOf<S extends SchemaShape, T extends string> =
  QueryFunction<S, T> extends (payload: infer P) => unknown ? P : unknown

/** What a query is answered with. */
export type AnswerOf<S extends SchemaShape, T extends string> =
  QueryFunction<S, T> extends (payload: never) => infer A ? A : unknown

/** A write as its caller sees it. */
export interface Written {
  /** Opaque; later versions of a key compare greater by `<`. */
  version: string
  /**
   * More is written than `bytesPerSecondMax` lets out, for over a second: own writes wait, or others ask in vain for what left. It
   * spreads later, by anti-entropy at the latest.
   */
  backlogged: boolean
}

/** One change of the local replica. */
export type StateChange<K extends string = string, V = unknown> =
  | { type: 'set'; key: K; value: V; version: string; origin: string | null }
  | { type: 'delete' | 'expire'; key: K; value: undefined; version: string; origin: string | null }

/** What a heal cost and brought, at this member. */
export interface PartitionHealed {
  /** Names of those that came back. */
  members: string[]
  /** Entries received. */
  keysReceived: number
  /** Entries sent. */
  keysSent: number
  /** Bytes of anti-entropy, both ways. */
  bytes: number
  /** From the first contact to equal roots, or 30 s. */
  durationMs: number
}

/** A snapshot of counters and present values: plain finite numbers, nested by part. */
export interface Metrics {
  /** Members by liveness, self included. */
  members: { alive: number; suspect: number; dead: number; left: number }
  /** Datagrams and frames, sealing included, IP and UDP headers not. */
  traffic: {
    datagramsSent: number
    bytesSent: number
    datagramsReceived: number
    bytesReceived: number
    framesSent: number
    frameBytesSent: number
    framesReceived: number
    frameBytesReceived: number
  }
  /** Packets and records dropped, by cause. */
  dropped: Record<string, number>
  /** Probes, accusations, suspicions, refutations, deaths, revived. */
  detector: Record<string, number>
  /** Rumors sent, asked for, new and known, hot, and the age of the oldest own write not sent yet. */
  rumors: Record<string, number>
  /** Sessions, useless sessions, records and bytes moved. */
  antiEntropy: Record<string, number>
  /** Broadcasts, queries, answers, mail and polls. */
  talk: Record<string, number>
  /** Keys, bytes, tombstones; `full` is 1 while a limit is reached: new keys are refused and nothing is repaired. */
  store: { keys: number; bytes: number; tombstones: number; full: number }
  /** Batches saved to disk, and times the disk refused one; each is tried again. */
  storage: { batches: number; failures: number }
  /** Own wall clock minus the median of the partners', ms. */
  clock: { offMs: number }
  /** Sockets, as the operating system and the fault injection saw them. */
  socket: Record<string, number>
  /** Events handed to JavaScript: waiting now, and dropped for a slow reader. */
  events: { waiting: number; dropped: number }
  /** Milliseconds JavaScript has been blocked for more than 100 ms at a time since the first start in this thread. */
  js: { blockedMs: number }
  /** 1 or 0; the reasons are in `health()`. */
  healthy: number
}

/** Whether this member can do its work, and why not. */
export interface Health {
  healthy: boolean
  reasons: string[]
}

/** Options of a `HashRing`. */
export interface HashRingOptions {
  /** Points of a name of weight 1, 1..65536; default 100. Shares deviate by about 1 / sqrt(virtualNodes) of their mean. */
  virtualNodes?: number | undefined
  /** Whether `owners` spreads over zones; default false. */
  zoneAware?: boolean | undefined
}

/** One name of a `HashRing`. */
export interface RingMember {
  /** Not empty. */
  name: string
  /** Its share relative to others, > 0; default 1. */
  weight?: number | undefined
  /** What fails together with it; all without a zone count as one. */
  zone?: string | null | undefined
}

/** Options of `cluster.ring`. Rings are equal only if their options are. */
export interface RingOptions extends HashRingOptions {
  /** Which members take part: those with all these tags. Default all. */
  filter?: { tags?: Readonly<Record<string, string>> | undefined } | undefined
  /** The tag whose number is a member's weight, over 0 and at most 1000; without it, or with anything else in it, 1. Default: none. */
  weightTag?: string | undefined
}

/**
 * What changed in a ring; both lists are empty if only weights or zones did. Members that come or go together, as at a heal, are in one
 * event; each one's coming or going is in exactly one.
 */
export interface RingChange {
  /** Names. */
  added: string[]
  /** Names. */
  removed: string[]
  /** The ring's version from now on. */
  version: string
}
