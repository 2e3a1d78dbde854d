import { setTimeout as sleep } from 'node:timers/promises'
import test from 'ava'
import type { Answer, Cluster } from '../ts/index.js'
import { createTestCluster } from '../ts/testing.js'

async function all(answers: AsyncIterable<Answer>): Promise<Answer[]> {
  const list: Answer[] = []
  for await (const answer of answers) list.push(answer)
  return list
}

const byName = (a: Answer, b: Answer): number => (a.from < b.from ? -1 : 1)

test('every member answers once, self included, and the loop ends at once', async (t) => {
  await using tc = await createTestCluster(3)
  for (const cluster of tc.clusters) {
    cluster.respond('sum', async (payload, { from }) => {
      await sleep(20)
      return { from, sum: (payload as number[]).reduce((a, b) => a + b) }
    })
  }
  const began = performance.now()
  const [, asker] = tc.clusters as [Cluster, Cluster]
  const answers = await all(asker.query('sum', [1, 2, 3], { timeoutMs: 60_000 }))
  t.true(performance.now() - began < 30_000)
  t.deepEqual(answers.sort(byName), [
    { from: 'm0', value: { from: 'm1', sum: 6 } },
    { from: 'm1', value: { from: 'm1', sum: 6 } },
    { from: 'm2', value: { from: 'm1', sum: 6 } },
  ])
  t.is(asker.metrics().talk.answersReceived, 3)
})

test('answers come as they arrive', async (t) => {
  await using tc = await createTestCluster(3)
  let release = (): void => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  tc.clusters[1]?.respond('q', () => 'fast')
  tc.clusters[2]?.respond('q', async () => {
    await held
    return 'slow'
  })
  const answers = tc.clusters[0]?.query('q', null, { timeoutMs: 30_000 })
  t.deepEqual((await answers?.next())?.value, { from: 'm1', value: 'fast' })
  release()
  t.deepEqual((await answers?.next())?.value, { from: 'm2', value: 'slow' })
  t.deepEqual(await answers?.next(), { done: true, value: undefined })
})

test('a filter, a throw, no responder, silence', async (t) => {
  await using tc = await createTestCluster(4, (i) => ({ tags: { role: i < 2 ? 'db' : 'api', n: String(i) } }))
  const [m0, m1, m2] = tc.clusters as [Cluster, Cluster, Cluster]
  let asked = 0
  m1.respond('q', () => {
    throw new TypeError('no disk')
  })
  m2.respond('q', () => {
    asked++
    return new Promise(() => {})
  })
  const only = await all(m0.query('q', null, { filter: { tags: { role: 'db' } } }))
  t.is(only.length, 1, 'm0 has no responder and is left out')
  t.is(only[0]?.from, 'm1')
  t.like(only[0]?.error, { name: 'HearsayError', code: 'ERR_HEARSAY_RESPONDER', message: 'no disk' })
  t.is(asked, 0, 'outside the filter')

  const answers = await all(m0.query('q', null, { timeoutMs: 800 }))
  t.deepEqual(
    answers.map(({ from, error }) => [from, error?.code]),
    [
      ['m1', 'ERR_HEARSAY_RESPONDER'],
      ['m2', 'ERR_HEARSAY_NO_ANSWER'],
    ],
  )
  t.is(asked, 1)

  const began = performance.now()
  t.deepEqual(await all(m0.query('nothing', null, { timeoutMs: 60_000 })), [])
  t.deepEqual(await all(m0.query('q', null, { timeoutMs: 60_000, filter: { tags: { n: '9' } } })), [])
  t.true(performance.now() - began < 30_000)
})

test('an answer the codec or the limits refuse is an error of the responder', async (t) => {
  await using tc = await createTestCluster(2, { limits: { valueBytesMax: 1_000 } })
  const [a, b] = tc.clusters as [Cluster, Cluster]
  b.respond('nothing', () => undefined)
  b.respond('long', () => 'x'.repeat(2_000))
  const [nothing] = await all(a.query('nothing', null))
  t.is(nothing?.error?.code, 'ERR_HEARSAY_RESPONDER')
  t.regex(nothing?.error?.message ?? '', /JSON has no undefined/)
  const [long] = await all(a.query('long', null))
  t.is(long?.error?.code, 'ERR_HEARSAY_RESPONDER')
  t.regex(long?.error?.message ?? '', /at most 1000 bytes, got 2002/)
})

test('a question and an answer of 300 kB', async (t) => {
  await using tc = await createTestCluster(2)
  const [a, b] = tc.clusters as [Cluster, Cluster]
  b.respond('echo', (payload) => `${payload}!`)
  const text = 'x'.repeat(300_000)
  const [answer] = await all(a.query('echo', text, { timeoutMs: 30_000 }))
  t.is(answer?.from, 'm1')
  t.is(answer?.value, `${text}!`)
})

test('a member that is cut off has not answered', async (t) => {
  await using tc = await createTestCluster(3)
  for (const cluster of tc.clusters) cluster.respond('q', () => 1)
  tc.isolate(2)
  const [asker] = tc.clusters as [Cluster]
  const answers = await all(asker.query('q', null, { timeoutMs: 1_000 }))
  t.is(answers.length, 3)
  t.deepEqual(answers.slice(0, 2).sort(byName), [
    { from: 'm0', value: 1 },
    { from: 'm1', value: 1 },
  ])
  t.is(answers[2]?.from, 'm2')
  t.is(answers[2]?.error?.code, 'ERR_HEARSAY_NO_ANSWER')
})

test('one responder per topic, until it is ended', async (t) => {
  await using tc = await createTestCluster(2)
  const [a, b] = tc.clusters as [Cluster, Cluster]
  const off = b.respond('q', () => 1)
  t.throws(() => b.respond('q', () => 2), { code: 'ERR_HEARSAY_ARGUMENT' })
  t.throws(() => b.respond('', () => 2), { code: 'ERR_HEARSAY_TOPIC' })
  t.deepEqual(await all(a.query('q', null)), [{ from: 'm1', value: 1 }])
  off()
  off()
  t.deepEqual(await all(a.query('q', null, { timeoutMs: 30_000 })), [])
  b.respond('q', () => 3)
  t.deepEqual(await all(a.query('q', null)), [{ from: 'm1', value: 3 }])
})

test('wrong arguments, abort, break and stop', async (t) => {
  const tc = await createTestCluster(2)
  const [a, b] = tc.clusters as [Cluster, Cluster]
  b.respond('never', () => new Promise(() => {}))
  b.respond('q', () => 1)
  t.throws(() => a.query('t'.repeat(257), null), { code: 'ERR_HEARSAY_TOPIC' })
  t.throws(() => a.query('q', undefined), { code: 'ERR_HEARSAY_CODEC' })
  t.throws(() => a.query('q', null, { timeoutMs: -1 }), { message: /^query\.timeoutMs must be/ })
  t.throws(() => a.query('q', null, { filters: {} } as never), {
    message: 'unknown option query.filters; did you mean query.filter?',
  })
  t.throws(() => a.query('q', null, { filter: { tags: { a: 'x'.repeat(256) } } }), {
    message: /^query\.filter\.tags\.a must be/,
  })

  const controller = new AbortController()
  const aborted = all(a.query('never', null, { timeoutMs: 60_000, signal: controller.signal }))
  setTimeout(() => controller.abort('enough'), 50)
  const error = await t.throwsAsync(aborted, { name: 'AbortError' })
  t.is(error?.cause, 'enough')
  await t.throwsAsync(all(a.query('q', null, { signal: AbortSignal.abort() })), { name: 'AbortError' })

  for await (const answer of a.query('q', null)) {
    t.is(answer.from, 'm1')
    break
  }

  const pending = all(a.query('never', null, { timeoutMs: 60_000 }))
  await sleep(100)
  await tc.stopAll()
  t.deepEqual(await pending, [], 'iterators finish')
  t.throws(() => a.query('q', null), { code: 'ERR_HEARSAY_STOPPED' })
})
