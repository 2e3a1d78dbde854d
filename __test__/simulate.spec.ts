import test from 'ava'
import { HearsayError, type SimulatedTimes, type SimulateOptions, simulate } from '../ts/index.js'
import { child } from './child.js'

const times = (t: SimulatedTimes, count: number): boolean =>
  t.count === count && t.median !== null && t.max !== null && t.median > 0 && t.median <= t.max

test('a write reaches everybody, and says what it cost', async (t) => {
  const { kind, members, figures, failures, simulatedMs } = await simulate({
    members: 50,
    scenario: { kind: 'rumor', writes: 5 },
  })
  t.deepEqual([kind, members, failures], ['rumor', 50, []])
  t.is(figures.late, 0)
  t.true(times(figures.halfMs, 5) && times(figures.mostMs, 5) && times(figures.allMs, 5))
  t.true((figures.halfMs.median ?? 0) <= (figures.allMs.median ?? 0))
  t.true(figures.copies > 0.7 && figures.copies < 1.5, String(figures.copies))
  t.true(figures.idle.bytesPerSecond > 50 && figures.idle.bytesPerSecond < 135)
  t.true(simulatedMs > 10_000)
})

test('broadcasts and queries have their figures', async (t) => {
  const said = await simulate({
    members: 20,
    scenario: { kind: 'broadcast', broadcasts: 4, payloadBytes: 100 },
  })
  t.deepEqual(said.failures, [])
  t.true(times(said.figures.allMs, 4))
  const asked = await simulate({ members: 20, scenario: { kind: 'query', queries: 4 } })
  t.deepEqual([asked.failures, asked.figures.silent], [[], 0])
  t.true(times(asked.figures.allMs, 4))
})

test('crashes are found by the patience of the settings given', async (t) => {
  const last = async (patienceMs: number): Promise<number> => {
    const { figures, failures } = await simulate({
      members: 20,
      scenario: { kind: 'crash', crashes: 3 },
      config: { profile: 'lan', failureDetector: { patienceMs } },
    })
    t.deepEqual([failures, figures.falseDeaths, figures.unnoticed], [[], 0, 0])
    t.true((figures.firstSuspicionMs.median ?? 0) < (figures.firstDeathMs.median ?? 0))
    return figures.lastDeathMs.median ?? 0
  }
  const longer = (await last(8_000)) - (await last(2_000))
  t.true(longer > 5_000 && longer < 7_000, String(longer))
})

test('joins and partitions have their figures', async (t) => {
  const joined = await simulate({
    members: 30,
    scenario: { kind: 'join', withinMs: 1_000 },
    config: { tags: { role: 'api' } },
  })
  t.deepEqual(joined.failures, [])
  t.true((joined.figures.fullViewsMs ?? 0) >= 900)
  t.true(joined.figures.seedBytes > joined.figures.bytesPerMember)
  const cut = await simulate({
    members: 20,
    scenario: { kind: 'partition', lastsMs: 30_000, share: 0.25, keys: 10 },
  })
  t.deepEqual([cut.failures, cut.figures.cut, cut.figures.keysLost], [[], 5, 0])
  t.true((cut.figures.buriedMs ?? 0) > 4_000)
  t.true(cut.figures.fullViewsMs !== null && cut.figures.equalRootsMs !== null)
})

test('the same seed gives the same figures, another one others', async (t) => {
  const run = (seed: number) =>
    simulate({ members: 20, seed, loss: 0.05, scenario: { kind: 'rumor', writes: 3 } })
  const [first, again, other] = await Promise.all([run(7), run(7), run(8)])
  t.deepEqual(first, again)
  t.notDeepEqual(first.figures, other.figures)
  t.is(first.loss, 0.05)
})

test('keys cost bytes, a slow network time', async (t) => {
  const run = (config: SimulateOptions['config'], delayMs?: number) =>
    simulate({ members: 10, delayMs, config, scenario: { kind: 'rumor', writes: 3 } })
  const plain = await run({})
  const sealed = await run({ keys: [new Uint8Array(32)] })
  t.true(sealed.figures.idle.bytesPerSecond > plain.figures.idle.bytesPerSecond + 20)
  const slow = await run({}, 100)
  t.true((slow.figures.allMs.median ?? 0) > (plain.figures.allMs.median ?? 0) + 80)
})

test('wrong options are refused with their path', async (t) => {
  const good = { members: 5, scenario: { kind: 'rumor' } }
  const cases: [object, RegExp][] = [
    [{ scenario: { kind: 'rumor' } }, /^members must be an integer in 2\.\.2000, got undefined/],
    [{ ...good, members: 1 }, /^members must be an integer in 2\.\.2000, got 1/],
    [{ members: 5 }, /^scenario must be an object with a kind/],
    [{ ...good, scenario: { kind: 'rumour' } }, /^scenario\.kind must be 'rumor' or/],
    [
      { ...good, scenario: { kind: 'rumor', write: 3 } },
      /^unknown option scenario\.write; did you mean scenario\.writes\?/,
    ],
    [{ ...good, scenario: { kind: 'crash', writes: 3 } }, /^unknown option scenario\.writes/],
    [{ ...good, scenario: { kind: 'partition', share: 0.7 } }, /^scenario\.share must be/],
    [{ ...good, loss: 1 }, /^loss must be a number in 0\.\.0\.95/],
    [{ ...good, lost: 0.1 }, /^unknown option lost; did you mean loss\?/],
    [{ ...good, seed: -1 }, /^seed must be an integer >= 0/],
    [
      { ...good, config: { failureDetector: { threshold: 0 } } },
      /^config\.failureDetector\.threshold must be > 0/,
    ],
    [{ ...good, config: { gosip: {} } }, /^unknown option config\.gosip; did you mean config\.gossip\?/],
  ]
  for (const [options, message] of cases) {
    const error = await t.throwsAsync(simulate(options as SimulateOptions), {
      instanceOf: HearsayError,
      message,
    })
    t.is(error?.code, 'ERR_HEARSAY_OPTION')
  }
})

test('JavaScript goes on meanwhile, and an aborted signal ends it', async (t) => {
  const controller = new AbortController()
  let turns = 0
  const timer = setInterval(() => {
    if (++turns === 3) controller.abort(new Error('enough'))
  }, 10)
  const running = simulate({
    members: 1_000,
    scenario: { kind: 'partition' },
    signal: controller.signal,
  })
  const error = await t.throwsAsync(running, { name: 'AbortError' })
  clearInterval(timer)
  t.is(error?.cause instanceof Error ? error.cause.message : '', 'enough')
  t.true(turns >= 3)
  await t.throwsAsync(simulate({ members: 5, scenario: { kind: 'join' }, signal: AbortSignal.abort() }), {
    name: 'AbortError',
  })
})

const door = JSON.stringify(new URL('../ts/index.ts', import.meta.url).href)
const built = JSON.stringify(new URL('../dist/index.js', import.meta.url).href)

test('a simulation holds the process until its end', async (t) => {
  const ended = await child(`
    const { simulate } = await import(${door})
    simulate({ members: 20, scenario: { kind: 'crash', crashes: 1 } }).then((done) => console.log(done.kind))
  `)
  t.deepEqual([ended.stderr, ended.code, ended.stdout], ['', 0, 'crash\n'])
})

test('neither an exit nor the end of a worker waits for a simulation', async (t) => {
  const exit = await child(`
    const { simulate } = await import(${door})
    simulate({ members: 1000, scenario: { kind: 'crash', crashes: 1000 } })
    setTimeout(() => process.exit(3), 50)
  `)
  t.deepEqual([exit.stderr, exit.code], ['', 3])
  const worker = await child(`
    import { Worker } from 'node:worker_threads'
    const source = \`import(${built}).then(({ simulate }) => {
      simulate({ members: 1000, scenario: { kind: 'crash', crashes: 1000 } })
      require('node:worker_threads').parentPort.postMessage('runs')
    })\`
    for (let round = 0; round < 3; round++) {
      const worker = new Worker(source, { eval: true, execArgv: [] })
      await new Promise((resolve) => worker.once('message', resolve))
      await worker.terminate()
    }
    console.log('whole')
  `)
  t.deepEqual([worker.stderr, worker.code, worker.stdout], ['', 0, 'whole\n'])
})
