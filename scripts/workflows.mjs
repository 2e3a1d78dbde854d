// Lints .github/workflows with actionlint and zizmor where they are, or (with CI set) where they can be installed; says what is
// skipped and why. Exit code 1 if one has a finding.
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'
import { ROOT, run } from './tools.mjs'

const FOLDER = join(ROOT, '.cache', 'lint')
const ACTIONLINT = 'github.com/rhysd/actionlint/cmd/actionlint@v1.7.12'
const ZIZMOR = 'zizmor==1.32.0'

/** The path of a program on PATH or in these folders. */
function find(name, ...folders) {
  const all = [...(process.env.PATH ?? '').split(delimiter), ...folders]
  const file = process.platform === 'win32' ? `${name}.exe` : name
  return all.map((folder) => join(folder, file)).find((path) => existsSync(path))
}

const linters = [
  {
    name: 'actionlint',
    find: () => find('actionlint', join(FOLDER, 'bin'), join(homedir(), 'go', 'bin')),
    install: ['go', 'install', ACTIONLINT],
    env: { GOBIN: join(FOLDER, 'bin') },
    args: ['-no-color'],
  },
  {
    name: 'zizmor',
    find: () => find('zizmor', join(FOLDER, 'python', 'bin')),
    install: ['python3', '-m', 'pip', 'install', '--quiet', '--target', join(FOLDER, 'python'), ZIZMOR],
    env: {},
    args: ['--offline', '--no-progress', '--color=never', '.github/workflows'],
  },
]

for (const { name, find: found, install, env, args } of linters) {
  if (found() === undefined && process.env.CI) {
    const { code, output } = await run(install, { quiet: true, env })
    if (code !== 0) console.log(`${name}: ${output.trim().split('\n').at(-1)}`)
  }
  const program = found()
  if (program === undefined) {
    console.log(`${name}: skipped, not installed (${install.join(' ')})`)
    continue
  }
  const { code, output } = await run([program, ...args], { quiet: true })
  console.log(code === 0 ? `${name}: clean` : `${name}: ${output}`)
  if (code !== 0) process.exitCode = 1
}
