import type { RingTable } from './native.js'

const utf8 = new TextEncoder()
/** Room for a key of the usual length; longer ones get their own. */
const room = new Uint32Array(256)
const roomBytes = new Uint8Array(room.buffer)

/** The hash of the last key: what {@link hash} leaves behind, since it would have to allocate to return two numbers. */
let high = 0
let low = 0

function last(h: number): number {
  let x = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35)
  return x ^ (x >>> 16)
}

/** The first 64 bits of MurmurHash3_x86_128 with seed 0, as `key_hash` of the core; `length` bytes, then zeros to a multiple of 16. */
function hash(words: Uint32Array, length: number): void {
  let [h1, h2, h3, h4] = [0, 0, 0, 0]
  for (let at = 0; at < length; at += 16) {
    const i = at >>> 2
    let a = Math.imul(words[i] as number, 0x239b961b)
    a = Math.imul((a << 15) | (a >>> 17), 0xab0e9789)
    let b = Math.imul(words[i + 1] as number, 0xab0e9789)
    b = Math.imul((b << 16) | (b >>> 16), 0x38b34ae5)
    let c = Math.imul(words[i + 2] as number, 0x38b34ae5)
    c = Math.imul((c << 17) | (c >>> 15), 0xa1e38b93)
    let d = Math.imul(words[i + 3] as number, 0xa1e38b93)
    d = Math.imul((d << 18) | (d >>> 14), 0x239b961b)
    h1 ^= a
    if (at + 16 > length) {
      h2 ^= b
      h3 ^= c
      h4 ^= d
      break
    }
    // Each takes the next one as it was before this block.
    h1 = (Math.imul(((h1 << 19) | (h1 >>> 13)) + h2, 5) + 0x561ccd1b) | 0
    h2 ^= b
    h2 = (Math.imul(((h2 << 17) | (h2 >>> 15)) + h3, 5) + 0x0bcaa747) | 0
    h3 ^= c
    h3 = (Math.imul(((h3 << 15) | (h3 >>> 17)) + h4, 5) + 0x96cd1c35) | 0
    h4 ^= d
    h4 = (Math.imul(((h4 << 13) | (h4 >>> 19)) + h1, 5) + 0x32ac3b17) | 0
  }
  h2 ^= length
  h3 ^= length
  h4 ^= length
  h1 = ((h1 ^ length) + h2 + h3 + h4) | 0
  const f1 = last(h1)
  const f2 = last((h2 + h1) | 0)
  const f3 = last((h3 + h1) | 0)
  const f4 = last((h4 + h1) | 0)
  high = (f1 + f2 + f3 + f4) >>> 0
  low = (f2 + high) >>> 0
}

/** Hashes the UTF-8 of a key. */
function hashKey(key: string): void {
  let [words, bytes] = [room, roomBytes]
  let length = key.length
  if (length * 3 + 16 > bytes.length) {
    words = new Uint32Array((length * 3 + 19) >>> 2)
    bytes = new Uint8Array(words.buffer)
  }
  for (let i = 0; i < length; i++) {
    const code = key.charCodeAt(i)
    if (code > 127) {
      length = utf8.encodeInto(key, bytes).written
      break
    }
    bytes[i] = code
  }
  const whole = (length + 15) & ~15
  for (let i = length; i < whole; i++) bytes[i] = 0
  hash(words, length)
}

/** Lookups in the points of a built ring: crossing to the addon for each would take longer than the lookup. */
export class Lookup {
  readonly #table: RingTable
  /** How far the upper half of a hash is shifted to find its entry of `starts`. */
  readonly #shift: number

  constructor(table: RingTable) {
    this.#table = table
    this.#shift = 32 - Math.log2(table.starts.length)
  }

  /** The name of the first point at or after the key's hash; undefined if the ring is empty. */
  owner(key: string): string | undefined {
    const { owners, names } = this.#table
    return owners.length === 0 ? undefined : names[owners[this.#first(key)] as number]
  }

  /** The first `n` distinct names from the key's hash on. */
  owners(key: string, n: number): string[] {
    const { owners, names } = this.#table
    const found: string[] = []
    if (owners.length === 0) return found
    let at = this.#first(key)
    for (let left = owners.length; left > 0 && found.length < n; left--) {
      const name = names[owners[at] as number] as string
      if (!found.includes(name)) found.push(name)
      if (++at === owners.length) at = 0
    }
    return found
  }

  #first(key: string): number {
    hashKey(key)
    const { high: upper, low: lower, starts } = this.#table
    const { length } = upper
    let at = starts[high >>> this.#shift] as number
    while (at < length) {
      const point = upper[at] as number
      if (point > high || (point === high && (lower[at] as number) >= low)) return at
      at++
    }
    return 0
  }
}
