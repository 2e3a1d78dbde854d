import { spawn } from 'node:child_process'

/** How a child process ended. `code` is null if it was still alive after the time and had to be killed. */
export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

const door = new URL('../ts/index.ts', import.meta.url).href

/** How to run a child. */
export interface ChildOptions {
  /** Killed after this; default 60,000. */
  withinMs?: number
  /** Killed so long after it first printed something. */
  aliveMs?: number
  nodeArguments?: string[]
  /** Arguments of the script. */
  arguments?: string[]
  /** Longest file it may write, in blocks of 1,024 bytes. */
  fileBlocksMax?: number
}

/** Runs a script, with `Cluster` imported, in a Node of its own. */
export function child(script: string, options: ChildOptions = {}): Promise<Ended> {
  const { withinMs = 60_000, aliveMs, nodeArguments = [], fileBlocksMax } = options
  const source = `import { Cluster } from ${JSON.stringify(door)}\n${script}`
  // The loader of TypeScript calls what Node.js 26 deprecates, and stderr is the script's.
  const loader = ['--disable-warning=DEP0205', '--import=@oxc-node/core/register']
  const args = [...nodeArguments, ...loader, '--input-type=module', '--eval', source]
  args.push(...(options.arguments === undefined ? [] : ['--', ...options.arguments]))
  return new Promise((resolve, reject) => {
    const cwd = new URL('..', import.meta.url)
    const node =
      fileBlocksMax === undefined
        ? spawn(process.execPath, args, { cwd })
        : spawn('bash', ['-c', `ulimit -f ${fileBlocksMax}; exec "$0" "$@"`, process.execPath, ...args], {
            cwd,
          })
    let [stdout, stderr] = ['', '']
    const kill = (): boolean => node.kill('SIGKILL')
    let alive: NodeJS.Timeout | undefined
    node.stdout.on('data', (data) => {
      stdout += data
      if (aliveMs !== undefined) alive ??= setTimeout(kill, aliveMs)
    })
    node.stderr.on('data', (data) => {
      stderr += data
    })
    const timer = setTimeout(kill, withinMs)
    node.on('error', reject)
    node.on('close', (code, signal) => {
      clearTimeout(timer)
      clearTimeout(alive)
      resolve({ code, signal, stdout, stderr })
    })
  })
}
