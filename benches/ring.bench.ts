import { createRequire } from 'node:module'
import b from 'benny'
import { HashRing } from '../ts/index.js'

interface Peer {
  get(key: string): string
  range(key: string, n: number): string[]
}
// It has no types of its own.
const Peer = createRequire(import.meta.url)('hashring') as new (
  names: string[],
  algorithm: string,
  options: object,
) => Peer

/** What ours must do of the peer's, at least. */
const REQUIRED = 5
const KEYS = 1 << 17
const VIRTUAL_NODES = 100
const keys = Array.from({ length: KEYS }, (_, i) => `user:${i * 7919}`)
let n = 0
let missed = false

/** Both lookups go through the same keys; the peer remembers its last 5,000 of them. */
async function compare(
  title: string,
  mask: number,
  ours: (key: string) => void,
  peer: (key: string) => void,
) {
  await b.suite(
    title,
    b.add('hearsay HashRing', () => ours(keys[n++ & mask] as string)),
    b.add('hashring 3.2.0', () => peer(keys[n++ & mask] as string)),
    b.cycle(),
    b.complete(({ results }) => {
      const [first, second] = results
      const ratio = (first?.ops ?? 0) / (second?.ops ?? 1)
      const judged = mask === KEYS - 1
      if (judged && ratio < REQUIRED) missed = true
      process.stdout.write(`  ${ratio.toFixed(1)} times the peer${judged ? `, required ${REQUIRED}` : ''}\n`)
    }),
  )
}

for (const size of [10, 100, 1_000]) {
  const names = Array.from({ length: size }, (_, i) => `10.0.${i >> 8}.${i & 255}:7946`)
  const ring = new HashRing(
    names.map((name) => ({ name })),
    { virtualNodes: VIRTUAL_NODES },
  )
  // Its points per name are virtual nodes x replicas.
  const peer = new Peer(names, 'md5', { 'vnode count': VIRTUAL_NODES / 4, replicas: 4 })
  const [all, few] = [KEYS - 1, 1_023]
  const owner = (key: string) => void ring.owner(key)
  const get = (key: string) => void peer.get(key)
  await compare(`owner of one of ${KEYS} keys, ${size} names`, all, owner, get)
  await compare(`owner of one of 1,024 keys, all in the peer's cache, ${size} names`, few, owner, get)
  await compare(
    `3 owners of one of ${KEYS} keys, ${size} names`,
    all,
    (key) => void ring.owners(key, 3),
    (key) => void peer.range(key, 3),
  )
}
if (missed) process.exitCode = 1
