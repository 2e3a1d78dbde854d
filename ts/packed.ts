import type { Liveness, Member, PartitionHealed } from './types.js'

/** Kinds of packed events above those of members (1..7); `crates/addon/src/events.rs` holds the same numbers. */
export const Kind = {
  forgotten: 8,
  changed: 9,
  healed: 10,
  seedFailed: 11,
  joinEnded: 12,
  nameConflict: 13,
  rejoined: 14,
  clockOff: 15,
  leaveEnded: 16,
  lagged: 17,
  started: 18,
  startFailed: 19,
  failed: 20,
  stopped: 21,
  broadcast: 22,
  mail: 23,
  mailEnded: 24,
  query: 25,
  answer: 26,
  queryEnded: 27,
  confirmed: 28,
  storage: 29,
  flushed: 30,
} as const

/** The name of an event about a member. */
export type MemberEventName =
  | 'memberJoined'
  | 'memberSuspected'
  | 'memberRefuted'
  | 'memberDied'
  | 'memberLeft'
  | 'memberUpdated'
  | 'memberRevived'

/** In the order of their kinds, which begin at 1. */
const MEMBER_EVENTS: readonly MemberEventName[] = [
  'memberJoined',
  'memberSuspected',
  'memberRefuted',
  'memberDied',
  'memberLeft',
  'memberUpdated',
  'memberRevived',
]

/** A change whose value is not decoded yet. */
export interface RawChange {
  type: 'set' | 'delete' | 'expire'
  key: string
  bytes: Buffer
  version: string
  origin: string | null
}

/** A message of another member, not decoded yet. */
export interface RawMessage {
  from: string
  topic: string
  bytes: Buffer
}

/** An answer to a query, not decoded yet; status as `crates/addon/src/events.rs` has it. */
export interface RawAnswer {
  from: string
  status: number
  bytes: Buffer
}

/** One event as the addon packed it. */
export type NativeEvent =
  | { type: MemberEventName; member: Member }
  | { type: 'memberForgotten'; member: Member }
  | { type: 'changed'; change: RawChange }
  | { type: 'partitionHealed'; healed: PartitionHealed }
  | { type: 'seedFailed'; seed: string; reason: string }
  | { type: 'joinEnded'; joined: boolean }
  | { type: 'nameConflict'; member: Member }
  | { type: 'rejoined'; dropped: number }
  | { type: 'clockOff'; offMs: number }
  | { type: 'leaveEnded' }
  | { type: 'lagged'; events: number; changes: number; messages: number }
  | { type: 'started' }
  | { type: 'startFailed'; code: string; message: string }
  | { type: 'failed'; reason: string }
  | { type: 'stopped' }
  | { type: 'broadcast' | 'mail'; message: RawMessage }
  | { type: 'mailEnded'; number: number; delivered: boolean }
  | { type: 'query'; query: number; message: RawMessage }
  | { type: 'answer'; query: number; answer: RawAnswer }
  | { type: 'queryEnded'; query: number; silent: string[] }
  | { type: 'confirmed'; waiter: number; count: number; of: number }
  | { type: 'storage'; failure: string }
  | { type: 'flushed'; number: number; code: string; message: string }

const LIVENESS: readonly Liveness[] = ['alive', 'alive', 'suspect', 'dead', 'left']
const CHANGES: readonly RawChange['type'][] = ['set', 'delete', 'expire']

/** Reads little-endian fields one after another; strings and byte strings have a u32 length before them. */
class Reader {
  readonly #buffer: Buffer
  at: number

  constructor(buffer: Buffer, at = 0) {
    this.#buffer = buffer
    this.at = at
  }

  byte(): number {
    return this.#buffer.readUInt8(this.at++)
  }

  count(): number {
    const value = this.#buffer.readUInt32LE(this.at)
    this.at += 4
    return value
  }

  number(): number {
    const value = this.#buffer.readDoubleLE(this.at)
    this.at += 8
    return value
  }

  /** A copy: the buffer under the reader is used again. */
  bytes(): Buffer {
    const end = this.count() + this.at
    const bytes = Buffer.from(this.#buffer.subarray(this.at, end))
    this.at = end
    return bytes
  }

  text(): string {
    const end = this.count() + this.at
    const text = this.#buffer.toString('utf8', this.at, end)
    this.at = end
    return text
  }

  member(): Member {
    const id = this.text()
    const name = this.text()
    const generation = this.number()
    const incarnation = this.number()
    const address = this.text()
    const liveness = LIVENESS[this.byte()] ?? 'alive'
    const tags: Record<string, string> = {}
    for (let left = this.count(); left > 0; left--) {
      const key = this.text()
      // Not by assignment: a peer may name a tag `__proto__`.
      Object.defineProperty(tags, key, {
        value: this.text(),
        enumerable: true,
        configurable: true,
        writable: true,
      })
    }
    const zone = Object.hasOwn(tags, 'zone') ? (tags.zone ?? null) : null
    return { id, name, generation, incarnation, address, tags, liveness, zone }
  }

  change(): RawChange {
    const type = CHANGES[this.byte()] ?? 'set'
    const key = this.text()
    const bytes = this.bytes()
    const version = this.text()
    const known = this.byte() === 1
    const origin = this.text()
    return { type, key, bytes, version, origin: known ? origin : null }
  }

  message(): RawMessage {
    return { from: this.text(), topic: this.text(), bytes: this.bytes() }
  }

  names(): string[] {
    return Array.from({ length: this.count() }, () => this.text())
  }

  healed(): PartitionHealed {
    const keysReceived = this.number()
    const keysSent = this.number()
    const bytes = this.number()
    const durationMs = this.number()
    const members = this.names()
    return { members, keysReceived, keysSent, bytes, durationMs }
  }
}

function event(kind: number, reader: Reader): NativeEvent | undefined {
  const aboutMember = MEMBER_EVENTS[kind - 1]
  if (aboutMember !== undefined) return { type: aboutMember, member: reader.member() }
  switch (kind) {
    case Kind.forgotten:
      return { type: 'memberForgotten', member: reader.member() }
    case Kind.changed:
      return { type: 'changed', change: reader.change() }
    case Kind.healed:
      return { type: 'partitionHealed', healed: reader.healed() }
    case Kind.seedFailed:
      return { type: 'seedFailed', seed: reader.text(), reason: reader.text() }
    case Kind.joinEnded:
      return { type: 'joinEnded', joined: reader.byte() === 1 }
    case Kind.nameConflict:
      return { type: 'nameConflict', member: reader.member() }
    case Kind.rejoined:
      return { type: 'rejoined', dropped: reader.number() }
    case Kind.clockOff:
      return { type: 'clockOff', offMs: reader.number() }
    case Kind.leaveEnded:
      return { type: 'leaveEnded' }
    case Kind.lagged:
      return {
        type: 'lagged',
        events: reader.number(),
        changes: reader.number(),
        messages: reader.number(),
      }
    case Kind.started:
      return { type: 'started' }
    case Kind.startFailed:
      return { type: 'startFailed', code: reader.text(), message: reader.text() }
    case Kind.failed:
      return { type: 'failed', reason: reader.text() }
    case Kind.stopped:
      return { type: 'stopped' }
    case Kind.broadcast:
      return { type: 'broadcast', message: reader.message() }
    case Kind.mail:
      return { type: 'mail', message: reader.message() }
    case Kind.mailEnded:
      return { type: 'mailEnded', number: reader.number(), delivered: reader.byte() === 1 }
    case Kind.query:
      return { type: 'query', query: reader.number(), message: reader.message() }
    case Kind.answer: {
      const query = reader.number()
      return {
        type: 'answer',
        query,
        answer: { from: reader.text(), status: reader.byte(), bytes: reader.bytes() },
      }
    }
    case Kind.queryEnded:
      return { type: 'queryEnded', query: reader.number(), silent: reader.names() }
    case Kind.confirmed:
      return { type: 'confirmed', waiter: reader.number(), count: reader.number(), of: reader.number() }
    case Kind.storage:
      return { type: 'storage', failure: reader.text() }
    case Kind.flushed:
      return { type: 'flushed', number: reader.number(), code: reader.text(), message: reader.text() }
    default:
      return undefined
  }
}

/** Appends the events in the first `length` bytes of the buffer to `events`. */
export function readEvents(buffer: Buffer, length: number, events: NativeEvent[]): void {
  let at = 0
  while (at < length) {
    const end = at + 4 + buffer.readUInt32LE(at)
    const read = event(buffer.readUInt8(at + 4), new Reader(buffer, at + 5))
    if (read !== undefined) events.push(read)
    at = end
  }
}

function* records(buffer: Buffer): Generator<Reader, void> {
  let at = 0
  while (at < buffer.length) {
    yield new Reader(buffer, at + 5)
    at += 4 + buffer.readUInt32LE(at)
  }
}

/** The members in a packed page. */
export function readMembers(buffer: Buffer): Member[] {
  return Array.from(records(buffer), (reader) => reader.member())
}

/** The first member of a packed page. */
export function readMember(buffer: Buffer | null): Member | undefined {
  return buffer === null ? undefined : new Reader(buffer, 5).member()
}

/** The keys in a packed page that has no values. */
export function readKeys(buffer: Buffer): string[] {
  return Array.from(records(buffer), (reader) => reader.text())
}

/** Keys and encoded values in a packed page. */
export function readEntries(buffer: Buffer): [string, Buffer][] {
  return Array.from(records(buffer), (reader) => [reader.text(), reader.bytes()])
}
