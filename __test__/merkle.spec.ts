import test from 'ava'
import { MerkleTree } from '../ts/index.js'

test('equal content, equal root, whatever the order', (t) => {
  const [a, b] = [new MerkleTree(), new MerkleTree()]
  const empty = a.root()
  t.regex(empty, /^[0-9a-f]{64}$/)
  for (let i = 0; i < 500; i++) a.set(`key/${i}`, `value ${i}`)
  for (let i = 499; i >= 0; i--) b.set(`key/${i}`, Buffer.from(`value ${i}`))
  t.is(a.root(), b.root())
  t.is(a.size, 500)
  t.deepEqual(a.diff(b), [])
  a.clear()
  t.is(a.root(), empty)
  t.is(a.size, 0)
})

test('diff names the keys that differ, in key order', (t) => {
  const [a, b] = [new MerkleTree(), new MerkleTree()]
  for (let i = 0; i < 1_000; i++) {
    a.set(`k${i}`, 'same')
    b.set(`k${i}`, 'same')
  }
  t.true(a.set('k7', 'mine'))
  t.false(a.set('k7', 'mine'))
  t.true(a.delete('k500'))
  t.false(a.delete('k500'))
  b.set('zebra', 'theirs')
  b.set('ä', 'theirs')
  const expected = ['k500', 'k7', 'zebra', 'ä']
  t.deepEqual(a.diff(b), expected)
  t.deepEqual(b.diff(a), expected)
  t.true(a.has('k7') && !a.has('k500'))
})

test('wrong arguments', (t) => {
  const tree = new MerkleTree()
  t.throws(() => tree.set(1 as never, 'x'), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.throws(() => tree.set('\ud800', 'x'), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.throws(() => tree.set('k', {} as never), { code: 'ERR_HEARSAY_ARGUMENT', message: /^value must be/ })
  t.throws(() => tree.diff({} as never), { code: 'ERR_HEARSAY_ARGUMENT' })
})
