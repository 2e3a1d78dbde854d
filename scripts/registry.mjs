// A registry of a few tarballs on 127.0.0.1, so that `npm install hearsay` can be tried as users will type it.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { basename } from 'node:path'

/**
 * Serves these packages until `close()`. Every request was for one of them if `strangers` is empty.
 *
 * @param {Awaited<ReturnType<typeof import('./stage.mjs').pack>>} packages
 * @returns {Promise<{ url: string, strangers: string[], close: () => Promise<void> }>}
 */
export async function serve(packages) {
  const strangers = []
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://localhost').pathname).slice(1)
    const wanted = packages.find(({ name, file }) => path === name || path === `-/${basename(file)}`)
    if (wanted === undefined) {
      strangers.push(path)
      response.writeHead(404).end('{}')
    } else if (path.startsWith('-/')) {
      response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(readFileSync(wanted.file))
    } else {
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document(wanted)))
    }
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${server.address().port}/`
  const document = ({ name, version, file, integrity, shasum, manifest }) => ({
    name,
    'dist-tags': { latest: version },
    versions: {
      [version]: { ...manifest, dist: { tarball: `${url}-/${basename(file)}`, integrity, shasum } },
    },
  })
  const close = () => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  }
  return { url, strangers, close }
}
