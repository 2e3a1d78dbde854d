import { EventEmitter } from 'node:events'
import { fromNative, HearsayError } from './errors.js'
import { binding, type NativeRing, type RingEntry } from './native.js'
import { checkHashRing, checkRing, checkRingMember, show } from './options.js'
import { Lookup } from './ringtable.js'
import type { HashRingOptions, Member, RingChange, RingMember, RingOptions } from './types.js'

/** Names to find at most by walking the points here; beyond, the addon is quicker. */
const WALK_MAX = 16

function checkKey(key: unknown): asserts key is string {
  if (typeof key === 'string') return
  throw new HearsayError('ERR_HEARSAY_ARGUMENT', `key must be a string, got ${show(key)}`)
}

/** A ring built by the addon, and its points on this side for lookups. */
class Ring {
  readonly #native: NativeRing
  readonly #zoneAware: boolean
  /** Undefined after a change, until the next lookup. */
  #lookup: Lookup | undefined
  #version: string

  constructor(virtualNodes: number, zoneAware: boolean) {
    this.#native = call(() => binding().NativeRing.create(virtualNodes, zoneAware))
    this.#zoneAware = zoneAware
    this.#version = this.#native.version()
  }

  get version(): string {
    return this.#version
  }

  change(added: RingEntry[], removed: string[]): boolean {
    const changed = call(() => this.#native.change(added, removed))
    if (changed) {
      this.#lookup = undefined
      this.#version = this.#native.version()
    }
    return changed
  }

  owner(key: string): string | undefined {
    checkKey(key)
    return this.#points().owner(key)
  }

  owners(key: string, n: number): string[] {
    checkKey(key)
    if (!Number.isInteger(n) || n < 0 || n > 0xffff_ffff) {
      throw new HearsayError('ERR_HEARSAY_ARGUMENT', `n must be an integer >= 0, got ${show(n)}`)
    }
    if (this.#zoneAware || n > WALK_MAX) return this.#native.owners(key.toWellFormed(), n)
    return this.#points().owners(key, n)
  }

  #points(): Lookup {
    this.#lookup ??= new Lookup(this.#native.table())
    return this.#lookup
  }
}

function call<T>(act: () => T): T {
  try {
    return act()
  } catch (error) {
    throw fromNative(error)
  }
}

/**
 * A consistent-hash ring (Karger et al. 1997): each name has `virtualNodes` x weight points on a circle, a key belongs to the name
 * of the next point. A name that joins takes keys, one that goes gives keys, and none moves between others. Equal contents give
 * equal owners and versions on every machine, whatever the order of changes.
 */
export class HashRing {
  readonly #ring: Ring
  readonly #names = new Set<string>()

  /** `virtualNodes` 100, `zoneAware` false unless given. Throws `ERR_HEARSAY_OPTION`, and as `add`. */
  constructor(members: Iterable<RingMember> = [], options?: HashRingOptions) {
    const { virtualNodes = 100, zoneAware = false } = checkHashRing(options)
    if (typeof members?.[Symbol.iterator] !== 'function') {
      throw new HearsayError('ERR_HEARSAY_ARGUMENT', `members must be a list, got ${show(members)}`)
    }
    const entries = Array.from(members, (member, i) => checkRingMember(member, `members[${i}]`))
    this.#ring = new Ring(virtualNodes, zoneAware)
    this.#ring.change(entries, [])
    for (const { name } of entries) this.#names.add(name)
  }

  /** The name a key belongs to; undefined if the ring is empty. */
  owner(key: string): string | undefined {
    return this.#ring.owner(key)
  }

  /**
   * The first `n` distinct names from the key's place on, the owner first; all if there are fewer. With `zoneAware` no zone is used
   * twice while another is unused.
   */
  owners(key: string, n: number): string[] {
    return this.#ring.owners(key, n)
  }

  /** Adds a name, or gives it a new weight or zone; false if it is there just so. Throws `ERR_HEARSAY_OPTION`. */
  add(member: RingMember): boolean {
    const entry = checkRingMember(member, 'member')
    const changed = this.#ring.change([entry], [])
    this.#names.add(entry.name)
    return changed
  }

  /** Removes a name; false if it was not there. */
  remove(name: string): boolean {
    if (typeof name !== 'string') {
      throw new HearsayError('ERR_HEARSAY_ARGUMENT', `name must be a string, got ${show(name)}`)
    }
    this.#names.delete(name)
    return this.#ring.change([], [name])
  }

  /** Whether the name is there. */
  has(name: string): boolean {
    return this.#names.has(name)
  }

  /** Number of names. */
  get size(): number {
    return this.#names.size
  }

  /** Opaque; equal for equal contents and options. */
  get version(): string {
    return this.#ring.version
  }
}

/** The events of a {@link ClusterRing}. */
export interface ClusterRingEvents {
  change: [change: RingChange]
}

/** What a ring needs of its cluster. */
export interface RingHost {
  /** Alive and suspect, self included. */
  members(): readonly Member[]
  closed(ring: ClusterRing): void
}

/**
 * A ring over the members of a cluster that are alive or suspect and match the filter, self included. Members with equal views and
 * equal options have equal rings and versions. A suspicion and its refutation move nothing. After `close`, or the cluster's end, it
 * stays as it was.
 */
export class ClusterRing extends EventEmitter<ClusterRingEvents> {
  readonly #ring: Ring
  readonly #host: RingHost
  readonly #options: RingOptions
  #held = new Map<string, RingEntry>()

  /** @internal Use `cluster.ring()`. */
  constructor(host: RingHost, options?: RingOptions) {
    super()
    this.#host = host
    this.#options = checkRing(options)
    const { virtualNodes = 100, zoneAware = false } = this.#options
    this.#ring = new Ring(virtualNodes, zoneAware)
    this.update(host.members())
  }

  /** The name of the member a key belongs to; undefined if no member matches. */
  owner(key: string): string | undefined {
    return this.#ring.owner(key)
  }

  /**
   * The first `n` distinct members from the key's place on, the owner first; all if there are fewer. With `zoneAware` no zone is
   * used twice while another is unused.
   */
  owners(key: string, n: number): string[] {
    return this.#ring.owners(key, n)
  }

  /** Number of members on the ring. */
  get size(): number {
    return this.#held.size
  }

  /** Opaque; equal on members with equal views and options. */
  get version(): string {
    return this.#ring.version
  }

  /** Ends the following of the cluster. Idempotent. */
  close(): void {
    this.#host.closed(this)
  }

  /** @internal Takes over a view; what to tell, if the ring is another now. */
  update(members: readonly Member[]): RingChange | undefined {
    const wanted = new Map<string, RingEntry>()
    for (const member of members) if (this.#matches(member)) wanted.set(member.name, this.#entry(member))
    const added = [...wanted.keys()].filter((name) => !this.#held.has(name))
    const removed = [...this.#held.keys()].filter((name) => !wanted.has(name))
    const fresh = [...wanted.values()].filter((entry) => {
      const held = this.#held.get(entry.name)
      return held?.weight !== entry.weight || held.zone !== entry.zone
    })
    if (!this.#ring.change(fresh, removed)) return undefined
    this.#held = wanted
    return { added, removed, version: this.version }
  }

  #matches({ tags }: Member): boolean {
    const wanted = Object.entries(this.#options.filter?.tags ?? {})
    return wanted.every(([tag, value]) => Object.hasOwn(tags, tag) && tags[tag] === value)
  }

  /** Zones count only where they matter, so that a change of one moves nothing elsewhere. */
  #entry({ name, tags, zone }: Member): RingEntry {
    const { weightTag, zoneAware } = this.#options
    const given = weightTag === undefined ? undefined : tags[weightTag]
    const weight = given === undefined || given.trim() === '' ? 1 : Number(given)
    return {
      name,
      weight: weight > 0 && weight <= 1_000 ? weight : 1,
      ...(zoneAware && zone !== null ? { zone } : {}),
    }
  }
}

/** The rings of one cluster. */
export class Rings {
  readonly #members: () => readonly Member[]
  readonly #failed: (error: Error) => void
  readonly #rings = new Set<ClusterRing>()

  constructor(members: () => readonly Member[], failed: (error: Error) => void) {
    this.#members = members
    this.#failed = failed
  }

  /** One more ring, which follows from now on. */
  open(options?: RingOptions): ClusterRing {
    const ring = new ClusterRing(
      { members: this.#members, closed: (closed) => this.#rings.delete(closed) },
      options,
    )
    this.#rings.add(ring)
    return ring
  }

  /** The view may have changed: brings all rings up to it, then tells each one's listeners. */
  follow(thrown: unknown[]): void {
    if (this.#rings.size === 0) return
    const told: [ClusterRing, RingChange][] = []
    let members: readonly Member[]
    try {
      members = this.#members()
    } catch {
      // The member has ended; the rings stay as they were.
      return
    }
    for (const ring of this.#rings) {
      try {
        const change = ring.update(members)
        if (change !== undefined) told.push([ring, change])
      } catch (error) {
        this.#failed(fromNative(error))
      }
    }
    for (const [ring, change] of told) {
      if (!this.#rings.has(ring)) continue
      try {
        ring.emit('change', change)
      } catch (error) {
        thrown.push(error)
      }
    }
  }

  /** The cluster has ended. */
  end(): void {
    this.#rings.clear()
  }
}
