// What clients of an HTTP endpoint do while a guest touches its memory: a process of its own, which
// takes nothing of the event loop that is asked. `node clients.js KIND URL`; says `ready` once it has
// begun, and goes on until it is killed.
import { Agent, createServer, get } from 'node:http'
import { connect } from 'node:net'

const [kind, url] = process.argv.slice(2)
const agent = new Agent({ keepAlive: true, maxSockets: 1 })

/** Reads `/metrics` once. */
const scrape = (from = url) =>
  new Promise((resolve, reject) => {
    const request = get(`${from}/metrics`, { agent }, (response) => {
      let bytes = 0
      response.on('data', (part) => (bytes += part.length))
      response.on('end', () => resolve({ status: response.statusCode, bytes }))
    })
    request.on('error', reject)
  })

async function scrapeWithoutPause(from) {
  for (;;) await scrape(from)
}

/** As many connections at once, each replaced when it is closed; `talk` is what they say. */
function connections(count, talk = () => {}) {
  const { hostname: host, port } = new URL(url)
  const open = () => {
    const socket = connect({ host, port: Number(port) }, () => talk(socket))
    socket.on('error', () => {})
    socket.on('close', () => setTimeout(open, 100))
  }
  for (let number = 0; number < count; number += 1) open()
}

/** A byte of a request now and then, until the server has had enough of it. */
function slowly(socket) {
  const request = 'GET /metrics HTTP/1.1\r\nhost: localhost\r\n'
  let sent = 0
  const timer = setInterval(() => socket.write(request[sent++] ?? 'x'), 100)
  socket.on('close', () => clearInterval(timer))
}

/** The same answers from a server of nobody's memory: the work without what it asks. */
async function elsewhere() {
  const { bytes } = await scrape()
  const body = Buffer.alloc(bytes, 'x')
  const server = createServer((_request, response) => response.end(body))
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${server.address().port}`
}

const kinds = {
  'each-second': () => setInterval(() => void scrape(), 1000),
  'without-pause': () => void scrapeWithoutPause(),
  elsewhere: async () => void scrapeWithoutPause(await elsewhere()),
  thousand: () => connections(1000),
  slow: () => connections(60, slowly),
}

await kinds[kind]()
console.log('ready')
