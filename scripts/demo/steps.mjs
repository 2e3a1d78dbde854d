// The five steps of the demo. Each returns its figures or throws; a step that throws is not ok, and the demo exits with 1.
import { setTimeout as sleep } from 'node:timers/promises'
import { MemberProcess } from './process.mjs'
import { plotPhi } from './screen.mjs'

const GREETINGS_MS = 3_000
const INTERVAL_MS = 200
const THRESHOLD = 8
const COMMON_KEYS = 400
const SIDE_KEYS = 20
const VALUE = 'x'.repeat(100)

function check(condition, message) {
  if (!condition) {
    throw new Error(message)
  }
}

async function until(what, timeoutMs, probe) {
  const start = Date.now()
  for (;;) {
    const result = await probe()
    if (result) {
      return Date.now() - start
    }
    check(Date.now() - start < timeoutMs, `${what}: not within ${timeoutMs} ms`)
    await sleep(20)
  }
}

const views = (members) => Promise.all(members.map((m) => m.call('view')))
const allSee = (count) => (all) => all.every((view) => view.size === count)
const sameRoots = (all) => new Set(all.map((view) => view.root)).size === 1
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0)

async function join(demo) {
  const start = Date.now()
  const [first, ...rest] = demo.names
  demo.members.push(await MemberProcess.start(first, []))
  demo.screen.line(`${first} listens on ${demo.members[0].address}, the seed of the others`)
  demo.members.push(
    ...(await Promise.all(rest.map((name) => MemberProcess.start(name, [demo.members[0].address])))),
  )
  await until('five members in every view', 15_000, async () => allSee(5)(await views(demo.members)))
  await until('equal roots', 15_000, async () => sameRoots(await views(demo.members)))
  demo.screen.line(
    `five processes, five views of five: ${demo.members.map((m) => `${m.name}=${m.pid}`).join(' ')}`,
  )
  return { members: 5, fullViewsMs: Date.now() - start }
}

async function spread(demo) {
  await Promise.all(demo.members.map((m) => m.call('seen')))
  const writers = demo.members.slice(0, 3)
  const keys = writers.map((m) => `greeting/${m.name}`)
  const written = await Promise.all(writers.map((m, i) => m.call('set', [[keys[i], { from: m.name }]])))
  const start = Math.min(...written.map((w) => w.at))
  await until('keys on every member', 5_000, async () => {
    const found = await Promise.all(demo.members.map((m) => m.call('get', keys)))
    return found.every((values) => values.every((value, i) => value?.from === writers[i].name))
  })
  const rootsMs = await until('equal roots', 5_000, async () => sameRoots(await views(demo.members)))
  const seen = await Promise.all(demo.members.map((m) => m.call('seen')))
  const times = seen.flatMap((s) => s.changes.filter((c) => keys.includes(c.key)).map((c) => c.at - start))
  check(times.length === 15, `${times.length} changes were watched, expected 15`)
  const slowestMs = Math.max(...times)
  const rounds = Math.max(1, Math.ceil(slowestMs / INTERVAL_MS))
  const [{ root }] = await views(demo.members.slice(0, 1))
  demo.screen.line(
    `three keys written on three members, read on all five after ${slowestMs} ms (${rounds} gossip rounds)`,
  )
  demo.screen.line(`all five Merkle roots are ${root.slice(0, 16)}...`)
  return { keys: 3, members: 5, slowestMs, rounds, rootsMs, root, rootsEqual: true }
}

function highest(phis) {
  const numbers = phis.filter((phi) => typeof phi === 'number')
  return phis.includes('infinity') ? 'infinity' : numbers.length > 0 ? Math.max(...numbers) : null
}

async function crash(demo) {
  const victim = demo.members.pop()
  const survivors = demo.members
  // A member greets its partners 1.2 and 2 s after it joined. A greeting without an answer is a reason to probe, too: the plot is of phi.
  await sleep(GREETINGS_MS)
  await Promise.all(survivors.map((m) => m.call('seen')))
  const start = Date.now()
  await victim.kill()
  demo.screen.line(`${victim.name} (pid ${victim.pid}) was killed with SIGKILL`)
  const samples = []
  const events = survivors.map(() => [])
  await until('death known to all survivors', 30_000, async () => {
    // Two accusers suffice: any one survivor may learn of the death before its own phi is high.
    const phis = await Promise.all(survivors.map((m) => m.call('phi', victim.name)))
    samples.push({ ms: Date.now() - start, phi: highest(phis) })
    demo.screen.live(`highest phi: ${plotPhi(samples.slice(-70), THRESHOLD)}`)
    const seen = await Promise.all(survivors.map((m) => m.call('seen')))
    seen.forEach((s, i) => {
      events[i].push(...s.members.filter((e) => e.name === victim.name))
    })
    await sleep(80)
    return events.every((list) => list.some((e) => e.type === 'memberDied'))
  })
  const at = (type) => events.flatMap((list) => list.filter((e) => e.type === type).map((e) => e.at - start))
  const suspected = at('memberSuspected')
  const died = at('memberDied')
  check(suspected.length > 0, 'nobody suspected')
  const numbers = samples.map((s) => s.phi).filter((phi) => typeof phi === 'number')
  const phiMax = Math.max(0, ...numbers)
  check(phiMax >= THRESHOLD, `phi did not reach ${THRESHOLD}, only ${phiMax}`)
  const all = await views(survivors)
  check(
    all.every((view) => view.members.some((m) => m.name === victim.name && m.liveness === 'dead')),
    'not dead in every view',
  )
  const plot = plotPhi(samples, THRESHOLD)
  demo.screen.line(`highest phi: ${plot}  (full height: ${THRESHOLD})`)
  demo.screen.line(`suspected after ${Math.min(...suspected)} ms, dead for all after ${Math.max(...died)} ms`)
  return {
    victim: victim.name,
    firstSuspicionMs: Math.min(...suspected),
    firstDeathMs: Math.min(...died),
    lastDeathMs: Math.max(...died),
    phiMax: Math.round(phiMax * 100) / 100,
    plot,
    survivors: survivors.length,
  }
}

async function partition(demo) {
  const seed = demo.members[0]
  demo.members.push(await MemberProcess.start(demo.names[4], [seed.address]))
  await until('five members again', 15_000, async () => allSee(5)(await views(demo.members)))
  demo.screen.line(`${demo.names[4]} was started again under its name and is back`)
  const common = Array.from({ length: COMMON_KEYS }, (_, i) => [`common/${i}`, { i, value: VALUE }])
  await seed.call('set', common)
  await until('common keys everywhere', 15_000, async () => {
    const all = await views(demo.members)
    return sameRoots(all) && all.every((view) => view.keys >= COMMON_KEYS)
  })
  // Entries younger than the settle time are not compared; a cut that begins later leaves nothing else to repair.
  await sleep(4_000)

  const sides = [demo.members.slice(0, 2), demo.members.slice(2)]
  const cutAt = Date.now()
  await Promise.all(
    sides.flatMap((side, i) =>
      side.map((m) =>
        m.call(
          'cut',
          sides[1 - i].map((other) => other.address),
        ),
      ),
    ),
  )
  demo.screen.line(`cut: ${sides.map((side) => side.map((m) => m.name).join('+')).join(' | ')}`)
  await Promise.all(
    sides.map((side, i) =>
      side[0].call(
        'set',
        Array.from({ length: SIDE_KEYS }, (_, k) => [`side${i}/${k}`, { side: i, value: VALUE }]),
      ),
    ),
  )
  await until('each side has buried the other', 40_000, async () => {
    const [left, right] = await Promise.all(sides.map(views))
    demo.screen.live(`views: ${left.map((v) => v.size).join(' ')} | ${right.map((v) => v.size).join(' ')}`)
    return allSee(2)(left) && allSee(3)(right)
  })
  const buriedMs = Date.now() - cutAt
  const [left, right] = await Promise.all(sides.map(views))
  check(sameRoots(left) && sameRoots(right) && left[0].root !== right[0].root, 'the sides did not diverge')
  demo.screen.line(
    `each side holds the other dead after ${buriedMs} ms and has ${SIDE_KEYS} keys the other lacks`,
  )
  await sleep(4_000)

  await Promise.all(demo.members.map((m) => m.call('seen')))
  const before = await Promise.all(demo.members.map((m) => m.call('metrics')))
  const healAt = Date.now()
  await Promise.all(demo.members.map((m) => m.call('heal')))
  const viewsMs = await until('views of five', 30_000, async () => allSee(5)(await views(demo.members)))
  await until('equal roots', 30_000, async () => {
    const all = await views(demo.members)
    return sameRoots(all) && all.every((view) => view.keys === left[0].keys + SIDE_KEYS)
  })
  const rootsMs = Date.now() - healAt
  const after = await Promise.all(demo.members.map((m) => m.call('metrics')))
  const seen = await Promise.all(demo.members.map((m) => m.call('seen')))
  const travelled = seen.map((s) => [...new Set(s.changes.map((c) => c.key))])
  const expected = (index) => `side${index < 2 ? 1 : 0}/`
  const foreign = travelled.flatMap((keys, i) => keys.filter((key) => !key.startsWith(expected(i))))
  check(foreign.length === 0, `keys travelled that did not differ: ${foreign.slice(0, 3)}`)
  const keysTravelled = sum(travelled.map((keys) => keys.length))
  check(keysTravelled === SIDE_KEYS * 5, `${keysTravelled} keys arrived, expected ${SIDE_KEYS * 5}`)
  const sent = (m) => m.traffic.bytesSent + m.traffic.frameBytesSent
  const bytes = sum(after.map((m, i) => sent(m) - sent(before[i])))
  const fullCopyBytes = after[0].store.bytes * 5
  demo.screen.line(`healed: views after ${viewsMs} ms, equal roots after ${rootsMs} ms, nobody was asked to`)
  demo.screen.line(
    `${keysTravelled} keys arrived (${SIDE_KEYS} at each member), ${bytes} bytes in all; full copies: ${fullCopyBytes} bytes`,
  )
  return {
    buriedMs,
    viewsMs,
    rootsMs,
    keysTravelled,
    keysPerMember: SIDE_KEYS,
    bytes,
    fullCopyBytes,
    rootsEqual: true,
  }
}

async function leave(demo) {
  const leaver = demo.members.pop()
  await Promise.all(demo.members.map((m) => m.call('seen')))
  const start = Date.now()
  await leaver.call('leave')
  const leaveMs = Date.now() - start
  await leaver.end()
  await until('left in every view', 10_000, async () => {
    const all = await views(demo.members)
    return all.every((view) => view.members.some((m) => m.name === leaver.name && m.liveness === 'left'))
  })
  const knownMs = Date.now() - start
  const seen = await Promise.all(demo.members.map((m) => m.call('seen')))
  const died = seen.flatMap((s) => s.members.filter((e) => e.type === 'memberDied'))
  check(died.length === 0, 'a leave was taken for a death')
  demo.screen.line(`${leaver.name} left in ${leaveMs} ms; the others show it as left, not dead`)
  return { member: leaver.name, leaveMs, knownMs, liveness: 'left' }
}

const STEPS = [
  ['join', '1. join: five members find each other from one seed', join],
  ['spread', '2. spread: keys written on three members are read on all five', spread],
  ['crash', '3. crash: one process is killed', crash],
  ['partition', '4. partition: the cluster is cut in two, both sides write, the cut heals', partition],
  ['leave', '5. leave: one member goes by its own will', leave],
]

export async function runDemo(screen) {
  const demo = { screen, names: ['ada', 'bob', 'cyd', 'dan', 'eve'], members: [] }
  let ok = true
  try {
    for (const [step, title, run] of STEPS) {
      screen.title(title)
      const start = Date.now()
      const result = await run(demo).then(
        (figures) => ({ step, ok: true, ms: Date.now() - start, ...figures }),
        (error) => ({ step, ok: false, ms: Date.now() - start, error: error.message }),
      )
      screen.step(result)
      ok &&= result.ok
      if (!result.ok) {
        break
      }
    }
  } finally {
    await Promise.allSettled(demo.members.map((m) => m.end()))
  }
  return ok
}
