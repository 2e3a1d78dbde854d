import { spawn } from 'node:child_process'

/** How a child process ended. `code` is null if it was still alive after the time and had to be killed. */
export interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

const door = new URL('../ts/index.ts', import.meta.url).href

/** Runs a script, with `Cluster` imported, in a Node of its own. */
export function child(script: string, withinMs = 30_000, nodeArguments: string[] = []): Promise<Ended> {
  const source = `import { Cluster } from ${JSON.stringify(door)}\n${script}`
  const args = [...nodeArguments, '--import=@oxc-node/core/register', '--input-type=module', '--eval', source]
  return new Promise((resolve, reject) => {
    const node = spawn(process.execPath, args, { cwd: new URL('..', import.meta.url) })
    let [stdout, stderr] = ['', '']
    node.stdout.on('data', (data) => {
      stdout += data
    })
    node.stderr.on('data', (data) => {
      stderr += data
    })
    const timer = setTimeout(() => node.kill('SIGKILL'), withinMs)
    node.on('error', reject)
    node.on('close', (code, signal) => {
      clearTimeout(timer)
      resolve({ code, signal, stdout, stderr })
    })
  })
}
