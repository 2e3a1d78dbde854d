import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { inspect } from 'node:util'
import { HearsayError } from './errors.js'
import type { PhiSettings, RingEntry, SimulationSettings, StartOptions } from './native.js'
import type {
  ClusterOptions,
  Codec,
  HashRingOptions,
  Liveness,
  Logger,
  PhiModel,
  RingOptions,
} from './types.js'

/** Checks one value; gives it back in the form the caller wants, or throws with its path. */
type Check<T> = (value: unknown, path: string) => T

/** What the user gave, short enough for a message. */
export function show(value: unknown): string {
  const text = inspect(value, {
    depth: 1,
    breakLength: Number.POSITIVE_INFINITY,
    maxStringLength: 64,
    maxArrayLength: 4,
  })
  return text.length > 120 ? `${text.slice(0, 117)}...` : text
}

function wrong(path: string, must: string, value: unknown): HearsayError {
  return new HearsayError('ERR_HEARSAY_OPTION', `${path} must be ${must}, got ${show(value)}`)
}

function above(min: number): Check<number> {
  return (value, path) => {
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= min)
      throw wrong(path, `> ${min}`, value)
    return value
  }
}

function atLeast(min: number): Check<number> {
  return (value, path) => {
    if (typeof value !== 'number' || !Number.isFinite(value) || value < min)
      throw wrong(path, `>= ${min}`, value)
    return value
  }
}

function integer(min: number, max: number = Number.MAX_SAFE_INTEGER): Check<number> {
  const must = max === Number.MAX_SAFE_INTEGER ? `an integer >= ${min}` : `an integer in ${min}..${max}`
  return (value, path) => {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max)
      throw wrong(path, must, value)
    return value
  }
}

function oneOf<T extends string>(...names: T[]): Check<T> {
  const must = names.map((name) => `'${name}'`).join(' or ')
  return (value, path) => {
    if (!names.includes(value as T)) throw wrong(path, must, value)
    return value as T
  }
}

/** Edits that turn one word into the other (Levenshtein), small letters. */
function distance(a: string, b: string): number {
  const [x, y] = [a.toLowerCase(), b.toLowerCase()]
  let row = Array.from({ length: y.length + 1 }, (_, i) => i)
  for (let i = 1; i <= x.length; i++) {
    const next = [i]
    for (let j = 1; j <= y.length; j++) {
      const swap = (row[j - 1] ?? 0) + (x[i - 1] === y[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[y.length] ?? 0
}

/** The known name most like the given one. */
export function nearest(name: string, known: readonly string[]): string {
  return known.reduce(
    (best, next) => (distance(name, next) < distance(name, best) ? next : best),
    known[0] ?? '',
  )
}

type Shape = Readonly<Record<string, Check<unknown>>>
type Checked<T extends Shape> = { [K in keyof T]?: ReturnType<T[K]> }

/** Checks an object of optional fields; unknown fields are refused with the nearest name. */
function object<T extends Shape>(shape: T): Check<Checked<T>> {
  const known = Object.keys(shape)
  return (value, path) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw wrong(path === '' ? 'options' : path, 'an object', value)
    }
    const checked: Record<string, unknown> = {}
    for (const [name, field] of Object.entries(value)) {
      const at = path === '' ? name : `${path}.${name}`
      const check = Object.hasOwn(shape, name) ? shape[name] : undefined
      if (check === undefined) {
        const near = nearest(name, known)
        throw new HearsayError(
          'ERR_HEARSAY_OPTION',
          `unknown option ${at}; did you mean ${path === '' ? near : `${path}.${near}`}?`,
        )
      }
      if (field !== undefined) checked[name] = check(field, at)
    }
    return checked as Checked<T>
  }
}

const utf8Bytes = (text: string): number => Buffer.byteLength(text, 'utf8')

/** Control characters, separators of lines, unpaired surrogates: what does not print. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u

const name: Check<string> = (value, path) => {
  if (
    typeof value !== 'string' ||
    value === '' ||
    utf8Bytes(value) > 128 ||
    !value.isWellFormed() ||
    UNPRINTABLE.test(value)
  ) {
    throw wrong(path, '1..128 bytes of printable UTF-8', value)
  }
  return value
}

const label: Check<string> = (value, path) => {
  if (typeof value !== 'string' || utf8Bytes(value) > 255 || !value.isWellFormed()) {
    throw wrong(path, 'a string of at most 255 bytes', value)
  }
  return value
}

const ADDRESS = /^(?:\[[0-9a-fA-F:.%]+\]|[^\s:/[\]]+):(\d{1,5})$/

function address(portMin: number): Check<string> {
  const must = portMin === 0 ? "'host:port'" : "'host:port' with a port of 1..65535"
  return (value, path) => {
    const port = typeof value === 'string' && value.length <= 300 ? ADDRESS.exec(value)?.[1] : undefined
    if (port === undefined || Number(port) < portMin || Number(port) > 65_535) throw wrong(path, must, value)
    return value as string
  }
}

const SEEDS_MAX = 1_024

/** Checks a list of seeds, as an option, an argument of `join`, or what a seed function gave. */
export const seedList: Check<string[]> = (value, path) => {
  if (!Array.isArray(value)) throw wrong(path, "an array of 'host:port'", value)
  if (value.length > SEEDS_MAX) throw wrong(path, `at most ${SEEDS_MAX} seeds`, value.length)
  const check = address(1)
  return value.map((seed, i) => check(seed, `${path}[${i}]`))
}

/** Gives the seeds. */
export type SeedFunction = () => readonly string[] | Promise<readonly string[]>

const seeds: Check<string[] | SeedFunction> = (value, path) => {
  if (typeof value === 'function') return value as SeedFunction
  if (!Array.isArray(value)) throw wrong(path, "an array of 'host:port' or a function", value)
  return seedList(value, path)
}

/** Largest encoded size of a member's tags. */
export const TAGS_BYTES_MAX = 512

/** Checks tags: strings to strings, 512 bytes encoded. */
export const tags: Check<Record<string, string>> = (value, path) => {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrong(path, 'an object of strings', value)
  let bytes = 0
  for (const [key, text] of Object.entries(value)) {
    const at = `${path}.${key}`
    if (typeof text !== 'string' || !text.isWellFormed() || utf8Bytes(text) > 255) {
      throw wrong(at, 'a string of at most 255 bytes', text)
    }
    if (key === '' || !key.isWellFormed() || utf8Bytes(key) > 255)
      throw wrong(at, 'named by 1..255 bytes', key)
    bytes += 2 + utf8Bytes(key) + utf8Bytes(text)
  }
  if (bytes > TAGS_BYTES_MAX) {
    throw new HearsayError(
      'ERR_HEARSAY_TAGS',
      `${path} must have at most ${TAGS_BYTES_MAX} bytes encoded, got ${bytes}`,
    )
  }
  return { ...value } as Record<string, string>
}

const KEYS_MAX = 16
const BASE64 = /^[A-Za-z0-9+/_-]{43}=?$/

const keys: Check<Uint8Array[]> = (value, path) => {
  if (!Array.isArray(value) || value.length === 0 || value.length > KEYS_MAX) {
    const got = Array.isArray(value) ? `${value.length} keys` : typeof value
    throw new HearsayError(
      'ERR_HEARSAY_OPTION',
      `${path} must be an array of 1..${KEYS_MAX} keys, got ${got}`,
    )
  }
  return value.map((key: unknown, i) => {
    const bytes = typeof key === 'string' && BASE64.test(key) ? Buffer.from(key, 'base64') : key
    if (!(bytes instanceof Uint8Array) || bytes.length !== 32) {
      // The message never shows a key.
      const got = key instanceof Uint8Array ? `${key.length} bytes` : `a ${typeof key}`
      throw new HearsayError(
        'ERR_HEARSAY_OPTION',
        `${path}[${i}] must be 32 bytes or their base64, got ${got}`,
      )
    }
    return Uint8Array.from(bytes)
  })
}

const mode = oneOf('push-pull', 'push', 'pull')

const boolean: Check<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw wrong(path, 'true or false', value)
  return value
}

const demers = object({ feedback: boolean, loss: oneOf('coin', 'counter'), k: integer(1, 255) })

/** `adaptive`, or one of Demers' variants whole. */
const rumor: Check<'adaptive' | Required<ReturnType<typeof demers>>> = (value, path) => {
  if (value === 'adaptive') return value
  if (typeof value !== 'object' || value === null)
    throw wrong(path, "'adaptive' or { feedback, loss, k }", value)
  const { feedback, loss, k } = demers(value, path)
  if (feedback === undefined || loss === undefined || k === undefined) {
    throw wrong(path, "'adaptive' or { feedback, loss, k }", value)
  }
  return { feedback, loss, k }
}

const settle: Check<number> = (value, path) => {
  if (typeof value !== 'number' || value % 1_000 !== 0 || value < 1_000 || value > 60_000) {
    throw wrong(path, 'whole seconds in 1000..60000', value)
  }
  return value
}

const codec: Check<Codec> = (value, path) => {
  if (value === 'json' || value === 'bytes') return value
  if (typeof value === 'object' && value !== null && 'encode' in value && 'decode' in value) {
    if (typeof value.encode === 'function' && typeof value.decode === 'function') return value as Codec
  }
  throw wrong(path, "'json' or 'bytes' or { encode, decode }", value)
}

const LEVELS = ['debug', 'info', 'warn', 'error'] as const

const logger: Check<Logger> = (value, path) => {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) {
    throw wrong(path, 'an object with the methods debug, info, warn, error', value)
  }
  for (const level of LEVELS) {
    const method: unknown = (value as Record<string, unknown>)[level]
    if (method !== undefined && typeof method !== 'function')
      throw wrong(`${path}.${level}`, 'a function', method)
  }
  return value as Logger
}

/** Checks an `AbortSignal`. */
export const signal: Check<AbortSignal> = (value, path) => {
  if (!(value instanceof AbortSignal)) throw wrong(path, 'an AbortSignal', value)
  return value
}

const folder: Check<string> = (value, path) => {
  if (typeof value !== 'string' || value === '' || value.includes('\0') || !value.isWellFormed())
    throw wrong(path, 'the path of a folder', value)
  return resolve(value)
}

const storageShape = object({ path: folder })
const storage: Check<{ path: string }> = (value, path) => {
  const { path: given } = storageShape(value, path)
  if (given === undefined) throw wrong(`${path}.path`, 'the path of a folder', given)
  return { path: given }
}

const model = oneOf<PhiModel>('normal', 'exponential', 'pekko')

const cluster = object({
  name,
  cluster: label,
  bind: address(0),
  advertise: address(1),
  seeds,
  tags,
  keys,
  profile: oneOf('local', 'lan', 'wan'),
  gossip: object({ mode, intervalMs: integer(10, 60_000), fanout: integer(1, 16), rumor }),
  failureDetector: object({
    model,
    threshold: above(0),
    windowSize: integer(2, 10_000),
    heartbeatIntervalMs: integer(50, 600_000),
    partners: integer(1, 16),
    minStdDevMs: integer(0, 600_000),
    probeRounds: integer(1, 20),
    patienceMs: integer(100, 3_600_000),
    observeAllUpTo: integer(0, 64),
  }),
  antiEntropy: object({ settleMs: settle, confirmMs: integer(100, 60_000) }),
  bandwidth: object({ bytesPerSecondMax: integer(10_000) }),
  codec,
  logger,
  storage,
  forgetDeadAfterMs: integer(1_000, 31_536_000_000),
  broadcastRetentionMs: integer(1_000, 3_600_000),
  joinTimeoutMs: integer(10, 600_000),
  limits: object({
    membersMax: integer(2, 65_535),
    keyBytesMax: integer(1, 512),
    valueBytesMax: integer(1, 16_777_216),
    entriesMax: integer(1),
    storeBytesMax: integer(1_024),
    datagramBytesMax: integer(1_200, 65_000),
  }),
  signal,
})

type Filled = 'name' | 'cluster' | 'bind' | 'seeds' | 'tags' | 'keys' | 'profile' | 'codec' | 'joinTimeoutMs'

/** Options of `Cluster.start` after the check: defaults of the TypeScript layer filled in, everything else as given. */
export interface CheckedOptions extends Omit<ClusterOptions, Filled> {
  name: string
  cluster: string
  bind: string
  seeds: string[] | SeedFunction
  tags: Record<string, string>
  keys: Uint8Array[]
  profile: 'local' | 'lan' | 'wan'
  codec: Codec
  joinTimeoutMs: number
}

function defaultName(): string {
  const host = hostname().replace(new RegExp(UNPRINTABLE.source, 'gu'), '').slice(0, 64) || 'member'
  return `${host}-${crypto.randomUUID().slice(0, 8)}`
}

/** Checks the options of `Cluster.start` whole, before anything starts; with a path, those within another object. */
export function checkClusterOptions(options: ClusterOptions | undefined, path: string = ''): CheckedOptions {
  const checked = cluster(options === undefined ? {} : options, path)
  return {
    ...checked,
    name: checked.name ?? defaultName(),
    cluster: checked.cluster ?? '',
    bind: checked.bind ?? '127.0.0.1:0',
    seeds: checked.seeds ?? [],
    tags: checked.tags ?? {},
    keys: checked.keys ?? [],
    profile: checked.profile ?? 'lan',
    codec: checked.codec ?? 'json',
    joinTimeoutMs: checked.joinTimeoutMs ?? 1_000,
  }
}

/** Is this a bind address that only this machine can reach? */
export function isLoopback(bind: string): boolean {
  return /^(?:127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+$/.test(bind)
}

const phi = object({
  model,
  threshold: above(0),
  windowSize: integer(1, 65_536),
  minStdDevMs: atLeast(0),
  acceptablePauseMs: atLeast(0),
  firstHeartbeatEstimateMs: above(0),
})

/** Checks the options of a `PhiAccrualDetector`. */
export function checkPhiOptions(options: unknown): PhiSettings {
  return phi(options ?? {}, '') as PhiSettings
}

const timeoutMs = integer(0, 2_147_483_647)
const wait = object({ timeoutMs, signal, members: integer(1, 65_535) })

const version: Check<string> = (value, path) => {
  if (typeof value !== 'string' || !/^[0-9a-f]{32}$/.test(value))
    throw wrong(path, 'a version that `set` returned', value)
  return value
}

const spread = object({ timeoutMs, signal, members: integer(1, 65_535), version })
const query = object({ timeoutMs, signal, filter: object({ tags }) })

/** How long a call waits, and for how many. */
export interface Wait {
  timeoutMs?: number
  signal?: AbortSignal
  members?: number
}

/** Checks `{ timeoutMs, signal, members }` of a call; unknown fields are refused. */
export function checkWait(options: unknown, call: string): Wait {
  return wait(options ?? {}, call)
}

/** Checks the options of `state.spread`. */
export function checkSpread(options: unknown, call: string): Wait & { version?: string } {
  return spread(options ?? {}, call)
}

/** Checks the options of `query`. */
export function checkQuery(
  options: unknown,
  call: string,
): Wait & { filter?: { tags?: Record<string, string> } } {
  return query(options ?? {}, call)
}

const text: Check<string> = (value, path) => {
  if (typeof value !== 'string' || value === '') throw wrong(path, 'a string that is not empty', value)
  return value
}

const ringShape = { virtualNodes: integer(1, 65_536), zoneAware: boolean }
const hashRing = object(ringShape)
const clusterRing = object({ ...ringShape, filter: object({ tags }), weightTag: text })
const ringMember = object({
  name: text,
  weight: above(0),
  zone: (value, path) => (value === null ? null : text(value, path)),
})

/** Checks the options of a `HashRing`. */
export function checkHashRing(options: unknown): HashRingOptions {
  return hashRing(options ?? {}, '')
}

/** Checks the options of `cluster.ring`. */
export function checkRing(options: unknown): RingOptions {
  return clusterRing(options ?? {}, 'ring')
}

/** Checks one name of a `HashRing`. */
export function checkRingMember(member: unknown, path: string): RingEntry {
  const { name, weight = 1, zone } = ringMember(member, path)
  if (name === undefined) throw wrong(`${path}.name`, 'a string that is not empty', undefined)
  return { name, weight, ...(zone === undefined || zone === null ? {} : { zone }) }
}

/** Checks the filter of `members()`; without one: alive and suspect. */
export function checkLiveness(filter: { liveness?: unknown } | undefined): ReadonlySet<Liveness> {
  const all = ['alive', 'suspect', 'dead', 'left'] as const
  const check: Check<readonly Liveness[]> = (value, path) => {
    if (value === 'all') return all
    if (Array.isArray(value)) return value.map((one, i) => oneOf(...all)(one, `${path}[${i}]`))
    return [oneOf<Liveness | 'all'>('all', ...all)(value, path) as Liveness]
  }
  return new Set(object({ liveness: check })(filter ?? {}, 'members').liveness ?? ['alive', 'suspect'])
}

/** Checked options as the addon takes them: flat, without what only TypeScript knows. */
export function nativeOptions(options: CheckedOptions): StartOptions {
  const { name, cluster, bind, advertise, profile, gossip, failureDetector, antiEntropy, bandwidth, limits } =
    options
  const { intervalMs, fanout, mode, rumor } = gossip ?? {}
  const demers = typeof rumor === 'object' ? rumor : undefined
  const { forgetDeadAfterMs, broadcastRetentionMs, joinTimeoutMs } = options
  const given = {
    ...limits,
    ...failureDetector,
    ...antiEntropy,
    ...bandwidth,
    gossipIntervalMs: intervalMs,
    fanout,
    mode,
    rumorFeedback: demers?.feedback,
    rumorLoss: demers?.loss,
    rumorK: demers?.k,
    advertise,
    forgetDeadAfterMs,
    broadcastRetentionMs,
    joinTimeoutMs,
    storagePath: options.storage?.path,
  }
  return {
    ...(Object.fromEntries(
      Object.entries(given).filter(([, value]) => value !== undefined),
    ) as Partial<StartOptions>),
    name,
    cluster,
    bind,
    profile,
    seeds: Array.isArray(options.seeds) ? options.seeds : [],
    tags: Object.entries(options.tags).flat(),
    keys: options.keys,
  }
}

function share(max: number): Check<number> {
  return (value, path) => {
    if (typeof value !== 'number' || !(value >= 0 && value <= max))
      throw wrong(path, `a number in 0..${max}`, value)
    return value
  }
}

const half: Check<number> = (value, path) => {
  if (typeof value !== 'number' || !(value > 0 && value <= 0.5))
    throw wrong(path, 'a number over 0, at most 0.5', value)
  return value
}

const kind = oneOf('rumor', 'broadcast', 'query', 'crash', 'join', 'partition')
const times = integer(1, 1_000)
const bytes = integer(1, 1_048_576)

/** What each scenario of a simulation can be told, and as what the addon takes it. */
const scenarios = {
  rumor: object({ kind, writes: times, valueBytes: bytes }),
  broadcast: object({ kind, broadcasts: times, payloadBytes: bytes }),
  query: object({ kind, queries: times }),
  crash: object({ kind, crashes: times }),
  join: object({ kind, withinMs: integer(1, 600_000) }),
  partition: object({ kind, lastsMs: integer(1, 3_600_000), share: half, keys: integer(0, 10_000) }),
}

const scenario: Check<Pick<SimulationSettings, 'kind' | 'count' | 'bytes' | 'lastsMs' | 'share'>> = (
  value,
  path,
) => {
  if (typeof value !== 'object' || value === null) throw wrong(path, 'an object with a kind', value)
  const name = kind((value as { kind?: unknown }).kind, `${path}.kind`)
  const given = scenarios[name](value, path) as Record<string, number | undefined>
  const { writes, broadcasts, queries, crashes, keys } = given
  const usual = { crash: 5, partition: 50 }[name as string] ?? 20
  return {
    kind: name,
    count: writes ?? broadcasts ?? queries ?? crashes ?? keys ?? usual,
    bytes: given.valueBytes ?? given.payloadBytes ?? 64,
    lastsMs: given.withinMs ?? given.lastsMs ?? (name === 'join' ? 2_000 : 60_000),
    share: given.share ?? 0.5,
  }
}

const simulation = object({
  members: integer(2, 2_000),
  seed: integer(0),
  loss: share(0.95),
  duplicate: share(0.95),
  reorder: share(0.95),
  delayMs: share(10_000),
  scenario,
  config: (value, path) => checkClusterOptions(value as ClusterOptions, path),
  signal,
})

/** Checks the options of `simulate`; those of its members as `Cluster.start` does, with `config` before their path. */
export function checkSimulation(options: unknown): {
  start: StartOptions
  settings: SimulationSettings
  signal: AbortSignal | undefined
} {
  const checked = simulation(options, '')
  if (checked.members === undefined) throw wrong('members', 'an integer in 2..2000', undefined)
  if (checked.scenario === undefined) throw wrong('scenario', 'an object with a kind', undefined)
  const {
    config = checkClusterOptions({}),
    members,
    seed = 1,
    loss = 0,
    duplicate = 0,
    reorder = 0,
  } = checked
  const delayMs = checked.delayMs ?? (config.profile === 'wan' ? 40 : 0.3)
  return {
    start: nativeOptions(config),
    settings: { ...checked.scenario, members, seed, loss, duplicate, reorder, delayMs },
    signal: checked.signal,
  }
}
