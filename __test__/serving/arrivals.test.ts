import test from 'ava'
import { type Guest } from '../../src/index.js'
import { Arrivals } from '../../src/server/arrivals.js'

const guest = (id: number, hasEnded: boolean) =>
  ({ id, endSoFar: hasEnded ? {} : undefined }) as unknown as Guest & { id: number }

test('of guests that ended before anybody asked, the last ones are kept, and all that run', async (t) => {
  const arrivals = new Arrivals()
  for (let id = 0; id < 1000; id++) arrivals.add(guest(id, id % 500 !== 0))
  arrivals.end()
  const kept: number[] = []
  for (;;) {
    const next = (await arrivals.next().guest) as (Guest & { id: number }) | undefined
    if (next === undefined) break
    kept.push(next.id)
  }
  t.deepEqual(kept, [0, 500, ...Array.from({ length: 64 }, (_, index) => 936 + index)])
})
