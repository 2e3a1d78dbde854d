import test from 'ava'
import { Stream, type StreamOptions, toClusterEvent } from '../ts/events.js'
import { type NativeEvent, readEntries, readEvents, readKeys, readMember, readMembers } from '../ts/packed.js'

function stream(options: Partial<StreamOptions<string, string>> = {}) {
  const seen = { dropped: 0, closed: 0 }
  const made = new Stream<string, string>({
    max: 3,
    map: (item) => (item === 'skip' ? undefined : item),
    onDropped: (count) => {
      seen.dropped += count
    },
    onClosed: () => {
      seen.closed++
    },
    ...options,
  })
  return { made, seen }
}

async function rest(made: AsyncIterableIterator<string>): Promise<string[]> {
  const items: string[] = []
  for await (const item of made) items.push(item)
  return items
}

test('items in order, those from before the first next too', async (t) => {
  const { made, seen } = stream()
  made.push('a')
  const first = await made.next()
  t.deepEqual(first, { done: false, value: 'a' })
  const waiting = made.next()
  made.push('skip')
  made.push('b')
  t.deepEqual(await waiting, { done: false, value: 'b' })
  made.push('c')
  made.end()
  made.push('late')
  t.deepEqual(await rest(made), ['c'])
  t.deepEqual(seen, { dropped: 0, closed: 1 })
})

test('a full stream drops its oldest and counts', async (t) => {
  const { made, seen } = stream()
  for (const item of 'abcde') made.push(item)
  made.end()
  t.deepEqual(await rest(made), ['c', 'd', 'e'])
  t.is(seen.dropped, 2)
})

test('with keys, a full stream keeps the newest of each', async (t) => {
  const { made, seen } = stream({ keyOf: (item) => item[0] ?? '' })
  for (const item of ['a1', 'a2', 'b1', 'a3', 'c1', 'a4', 'a5', 'b2']) made.push(item)
  made.end()
  t.deepEqual(await rest(made), ['a1', 'a2', 'b1', 'c1', 'a5', 'b2'])
  t.is(seen.dropped, 2)
})

test('many items through a small window', async (t) => {
  const { made, seen } = stream({ max: 10_000 })
  for (let i = 0; i < 5_000; i++) made.push(String(i))
  const items: string[] = []
  for (let i = 0; i < 3_000; i++) items.push((await made.next()).value as string)
  for (let i = 5_000; i < 6_000; i++) made.push(String(i))
  made.end()
  items.push(...(await rest(made)))
  t.deepEqual(
    items,
    Array.from({ length: 6_000 }, (_, i) => String(i)),
  )
  t.is(seen.dropped, 0)
})

test('abort while waiting, and before', async (t) => {
  const control = new AbortController()
  const { made, seen } = stream({ signal: control.signal })
  const waiting = made.next()
  control.abort('enough')
  t.like(await t.throwsAsync(waiting), { name: 'AbortError', cause: 'enough' })
  t.deepEqual(await made.next(), { done: true, value: undefined })
  t.is(seen.closed, 1)

  const early = stream({ signal: AbortSignal.abort() })
  await t.throwsAsync(early.made.next(), { name: 'AbortError' })
  t.is(early.seen.closed, 1)
})

test('abort drops what waits', async (t) => {
  const control = new AbortController()
  const { made } = stream({ signal: control.signal })
  made.push('a')
  control.abort()
  await t.throwsAsync(made.next(), { name: 'AbortError' })
})

test('leaving the loop closes', async (t) => {
  const { made, seen } = stream()
  made.push('a')
  made.push('b')
  for await (const _ of made) break
  t.is(seen.closed, 1)
  t.deepEqual(await made.next(), { done: true, value: undefined })
})

/** The addon's writer, in small. */
class Packer {
  bytes: number[] = []
  raw(...bytes: number[]): this {
    this.bytes.push(...bytes)
    return this
  }
  count(n: number): this {
    return this.raw(...new Uint8Array(Uint32Array.of(n).buffer))
  }
  number(x: number): this {
    return this.raw(...new Uint8Array(Float64Array.of(x).buffer))
  }
  text(text: string): this {
    const bytes = Buffer.from(text)
    return this.count(bytes.length).raw(...bytes)
  }
  record(kind: number): Buffer {
    const head = Uint32Array.of(this.bytes.length + 1)
    return Buffer.from([...new Uint8Array(head.buffer), kind, ...this.bytes])
  }
}

const packedMember = (name: string, tags: [string, string][]) => {
  const packer = new Packer()
    .text('00000000000000ff')
    .text(name)
    .number(17)
    .number(3)
    .text('127.0.0.1:9')
    .raw(2)
  packer.count(tags.length)
  for (const [key, value] of tags) packer.text(key).text(value)
  return packer
}

test('packed members', (t) => {
  const page = Buffer.concat([
    packedMember('ä', [
      ['zone', 'eu'],
      ['__proto__', 'x'],
    ]).record(0),
    packedMember('b', []).record(0),
  ])
  const [first, second] = readMembers(page)
  t.like(first, {
    id: '00000000000000ff',
    name: 'ä',
    generation: 17,
    incarnation: 3,
    address: '127.0.0.1:9',
    liveness: 'suspect',
    zone: 'eu',
  })
  t.deepEqual(Object.entries(first?.tags ?? {}), [
    ['zone', 'eu'],
    ['__proto__', 'x'],
  ])
  t.is(Object.getPrototypeOf(first?.tags), Object.prototype)
  t.like(second, { name: 'b', zone: null })
  t.is(readMember(null), undefined)
  t.is(readMember(packedMember('c', []).record(0))?.name, 'c')
})

test('packed events, an unknown kind among them', (t) => {
  const all = Buffer.concat([
    packedMember('m', []).record(4),
    new Packer().raw(1, 2, 3).record(99),
    new Packer().raw(2).text('k').text('v').text('0'.repeat(32)).raw(0).text('').record(9),
    new Packer().raw(0).text('k').text('v').text('1'.repeat(32)).raw(1).text('w').record(9),
    new Packer().number(1).number(2).number(3).number(4).count(2).text('x').text('y').record(10),
    new Packer().text('s:1').text('refused').record(11),
    new Packer().raw(1).record(12),
    new Packer().number(8).record(14),
    new Packer().number(5).number(6).number(7).record(17),
    new Packer().record(21),
  ])
  const events: NativeEvent[] = []
  readEvents(Buffer.concat([all, Buffer.alloc(7)]), all.length, events)
  t.like(events[0], { type: 'memberDied' })
  t.deepEqual(events.slice(1), [
    {
      type: 'changed',
      change: { type: 'expire', key: 'k', bytes: Buffer.from('v'), version: '0'.repeat(32), origin: null },
    },
    {
      type: 'changed',
      change: { type: 'set', key: 'k', bytes: Buffer.from('v'), version: '1'.repeat(32), origin: 'w' },
    },
    {
      type: 'partitionHealed',
      healed: { members: ['x', 'y'], keysReceived: 1, keysSent: 2, bytes: 3, durationMs: 4 },
    },
    { type: 'seedFailed', seed: 's:1', reason: 'refused' },
    { type: 'joinEnded', joined: true },
    { type: 'rejoined', dropped: 8 },
    { type: 'lagged', events: 5, changes: 6, messages: 7 },
    { type: 'stopped' },
  ] as NativeEvent[])
  const told = events.map((event) => toClusterEvent(event)?.type)
  t.deepEqual(told, [
    'memberDied',
    undefined,
    undefined,
    'partitionHealed',
    'seedFailed',
    undefined,
    'rejoined',
    undefined,
    undefined,
  ])
})

test('packed pages of keys and entries', (t) => {
  const keys = Buffer.concat(['a', 'é'].map((key) => new Packer().text(key).record(0)))
  t.deepEqual(readKeys(keys), ['a', 'é'])
  const entries = Buffer.concat(
    ['a', 'b'].map((key) => new Packer().text(key).text(`v${key}`).text('x').record(0)),
  )
  t.deepEqual(readEntries(entries), [
    ['a', Buffer.from('va')],
    ['b', Buffer.from('vb')],
  ])
  t.deepEqual(readKeys(Buffer.alloc(0)), [])
})
