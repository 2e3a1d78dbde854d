import { HearsayError } from './errors.js'
import { binding, type NativeMerkle } from './native.js'
import { show } from './options.js'

function checkKey(key: unknown): asserts key is string {
  if (typeof key !== 'string' || !key.isWellFormed()) {
    throw new HearsayError('ERR_HEARSAY_ARGUMENT', `key must be a well-formed string, got ${show(key)}`)
  }
}

/**
 * A map with a Merkle root: equal maps have equal roots whatever the order of their changes, different maps different roots (as
 * far as BLAKE3 resists collisions). It holds keys and hashes of values, not the values. Strings stand for their UTF-8.
 */
export class MerkleTree {
  readonly #native: NativeMerkle

  constructor() {
    this.#native = binding().NativeMerkle.create()
  }

  /** Sets a key; false if it had this value already. */
  set(key: string, value: string | Uint8Array): boolean {
    checkKey(key)
    if (typeof value === 'string' && value.isWellFormed()) return this.#native.setText(key, value)
    if (value instanceof Uint8Array) return this.#native.setBytes(key, value)
    throw new HearsayError(
      'ERR_HEARSAY_ARGUMENT',
      `value must be a well-formed string or a Uint8Array, got ${show(value)}`,
    )
  }

  /** Removes a key; false if it was not there. */
  delete(key: string): boolean {
    checkKey(key)
    return this.#native.delete(key)
  }

  /** Whether the key is there. */
  has(key: string): boolean {
    checkKey(key)
    return this.#native.has(key)
  }

  /** Removes everything. */
  clear(): void {
    this.#native.clear()
  }

  /** Number of keys. */
  get size(): number {
    return this.#native.size
  }

  /** The root, 64 hex digits. */
  root(): string {
    return this.#native.root()
  }

  /** The keys held by one of both only or with different values, in key order. Cost grows with the differences. */
  diff(other: MerkleTree): string[] {
    if (!(other instanceof MerkleTree)) {
      throw new HearsayError('ERR_HEARSAY_ARGUMENT', `other must be a MerkleTree, got ${show(other)}`)
    }
    return this.#native.diff(other.#native)
  }
}
