import { createHash } from 'node:crypto'
import { Tree } from '@canvas-js/okra-memory'
import b from 'benny'
import { MerkleTree as StaticTree } from 'merkletreejs'
import { MerkleTree } from '../ts/index.js'

const N = 10_000
const keys = Array.from({ length: N }, (_, i) => `key/${String(i).padStart(6, '0')}`)
const sha256 = (data: Buffer): Buffer => createHash('sha256').update(data).digest()
const utf8 = new TextEncoder()

function ours(): MerkleTree {
  const tree = new MerkleTree()
  for (const key of keys) tree.set(key, 'value')
  return tree
}

const leaves = () => keys.map((key) => sha256(Buffer.from(`${key}value`)))

async function okra(): Promise<Tree> {
  const tree = new Tree()
  await tree.write(async (txn) => {
    for (const key of keys) await txn.set(utf8.encode(key), utf8.encode('value'))
  })
  return tree
}

const [tree, other] = [ours(), ours()]
for (let i = 0; i < N; i += 100) other.set(keys[i] ?? '', 'changed')
tree.root()
other.root()
const peer = await okra()
let n = 0

await b.suite(
  `build ${N} keys and take the root`,
  b.add('hearsay MerkleTree', () => {
    ours().root()
  }),
  b.add('merkletreejs 0.6.0 (static, no diff)', () => {
    new StaticTree(leaves(), sha256).getRoot()
  }),
  b.cycle(),
  b.complete(),
)

await b.suite(
  `change one of ${N} keys and take the root`,
  b.add('hearsay MerkleTree', () => {
    tree.set(keys[n % N] ?? '', String(n++))
    tree.root()
  }),
  b.add('okra-memory 0.4.7 (Merkle search tree)', async () => {
    await peer.write(async (txn) => {
      await txn.set(utf8.encode(keys[n % N] ?? ''), utf8.encode(String(n++)))
      await txn.getRoot()
    })
  }),
  b.cycle(),
  b.complete(),
)

for (const key of keys) tree.set(key, 'value')
await b.suite(
  `100 differences in ${N} keys`,
  b.add('hearsay MerkleTree: diff', () => {
    if (tree.diff(other).length !== 100) throw new Error('must find 100')
  }),
  b.cycle(),
  b.complete(),
)
