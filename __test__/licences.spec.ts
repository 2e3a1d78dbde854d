import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import test from 'ava'

const root = fileURLToPath(new URL('..', import.meta.url))

/** What may be shipped inside the addon. */
const SHIPPED = [
  '0BSD',
  'Apache-2.0',
  'Apache-2.0 WITH LLVM-exception',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'CC0-1.0',
  'ISC',
  'MIT',
  'MIT-0',
  'Unicode-3.0',
  'Unlicense',
  'Zlib',
]
/** What may help to build and test, and is shipped to nobody. */
const USED = [...SHIPPED, 'BlueOak-1.0.0', 'Python-2.0', 'PSF-2.0', 'CC-BY-4.0', 'WTFPL']

/** Is a licence expression (SPDX, or the old slash for OR) satisfied by these licences alone? */
function allowed(expression: string, licences: readonly string[]): boolean {
  const tokens = expression.replaceAll('/', ' OR ').match(/\(|\)|[^\s()]+/g) ?? []
  let at = 0
  const one = (): boolean => {
    if (tokens[at] === '(') {
      at++
      const inner = or()
      at++
      return inner
    }
    let name = tokens[at++] ?? ''
    if (tokens[at] === 'WITH') {
      name = `${name} WITH ${tokens[at + 1]}`
      at += 2
    }
    return licences.includes(name)
  }
  const and = (): boolean => {
    let all = one()
    while (tokens[at] === 'AND') {
      at++
      all = one() && all
    }
    return all
  }
  const or = (): boolean => {
    let any = and()
    while (tokens[at] === 'OR') {
      at++
      any = and() || any
    }
    return any
  }
  return tokens.length > 0 && or() && at === tokens.length
}

test('licence expressions are read rightly', (t) => {
  t.true(allowed('MIT OR GPL-3.0-only', SHIPPED))
  t.true(allowed('(MIT OR Apache-2.0) AND Unicode-3.0', SHIPPED))
  t.true(allowed('MIT/Apache-2.0', SHIPPED))
  t.true(allowed('GPL-2.0 OR Apache-2.0 WITH LLVM-exception', SHIPPED))
  t.false(allowed('MIT AND GPL-3.0-only', SHIPPED))
  t.false(allowed('Apache-2.0 WITH other-exception', SHIPPED))
  t.false(allowed('LGPL-3.0-or-later', SHIPPED))
  t.false(allowed('', SHIPPED))
})

test('every crate may be shipped', async (t) => {
  const { stdout } = await promisify(execFile)(
    'cargo',
    ['metadata', '--format-version=1', '--locked', '--quiet'],
    { cwd: root, maxBuffer: 1 << 28 },
  )
  const packages: { name: string; version: string; license: string | null }[] = JSON.parse(stdout).packages
  t.true(packages.length > 50)
  const wrong = packages.filter(({ license }) => !allowed(license ?? '', SHIPPED))
  t.deepEqual(
    wrong.map(({ name, version, license }) => `${name} ${version}: ${license}`),
    [],
  )
})

test('every npm package that helps to build may be used', (t) => {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
  const entries = Object.entries<{ license?: string }>(lock.packages).filter(([path]) => path !== '')
  t.true(entries.length > 50)
  const wrong: string[] = []
  for (const [path, { license }] of entries) {
    if (!allowed(license ?? licenceOf(path), USED)) wrong.push(`${path}: ${license}`)
  }
  t.deepEqual(wrong, [])
})

/** Some packages of the lock file say their licence only in an old form of their manifest. */
function licenceOf(path: string): string {
  try {
    const { license, licenses } = JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8'))
    if (typeof license === 'string') return license
    return license?.type ?? licenses?.[0]?.type ?? ''
  } catch {
    return ''
  }
}
