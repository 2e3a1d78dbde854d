import { readdirSync, readFileSync } from 'node:fs'
import test from 'ava'

const folder = new URL('../ts/', import.meta.url)
const sources = readdirSync(folder)
  .filter((name) => name.endsWith('.ts'))
  .map((name) => ({ name, text: readFileSync(new URL(name, folder), 'utf8') }))

/** Files that may call the addon. `import type` is free: it says a shape and brings nothing. */
const CALLERS = ['cluster.ts', 'merkle.ts', 'phi.ts', 'ring.ts', 'simulate.ts']

function imports(text: string): { from: string; typeOnly: boolean }[] {
  const found = text.matchAll(/^(?:import|export)\s+(type\s)?[^'"]*?from\s+'(\.[^']+)'/gms)
  return [...found].map(([, type, from]) => ({ from: from ?? '', typeOnly: type !== undefined }))
}

test('only native.ts knows the binding', (t) => {
  for (const { name, text } of sources) {
    if (name === 'native.ts') continue
    t.notRegex(text, /hearsay\.cjs/, name)
    const calls = imports(text).some(({ from, typeOnly }) => from === './native.js' && !typeOnly)
    t.is(calls, CALLERS.includes(name), name)
  }
})

test('nobody inside imports a door', (t) => {
  for (const { name, text } of sources) {
    for (const { from } of imports(text)) t.false(['./index.js', './testing.js'].includes(from), name)
  }
})

test('imports go one way', (t) => {
  const edges = new Map(
    sources.map(({ name, text }) => [
      name,
      imports(text)
        .filter(({ typeOnly }) => !typeOnly)
        .map(({ from }) => from.slice(2).replace(/\.js$/, '.ts')),
    ]),
  )
  const visit = (name: string, path: string[]): void => {
    t.false(path.includes(name), [...path, name].join(' -> '))
    if (path.includes(name)) return
    for (const next of edges.get(name) ?? []) visit(next, [...path, name])
  }
  for (const name of edges.keys()) visit(name, [])
})

test('no file is over 600 lines of code', (t) => {
  for (const { name, text } of sources) {
    const code = text.replace(/\/\*[\s\S]*?\*\//g, '').split('\n')
    const lines = code.filter((line) => line.trim() !== '' && !line.trim().startsWith('//'))
    t.true(lines.length <= 600, `${name}: ${lines.length}`)
  }
})
