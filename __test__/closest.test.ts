import test from 'ava'
import { commands } from '../src/cli/commands.js'
import { restoreOptions } from '../src/cli/restore/options.js'
import { serveOptions } from '../src/cli/serve/options.js'
import { closest } from '../src/closest.js'

const options = Object.keys({ ...serveOptions, ...restoreOptions }).map((name) => `--${name}`)
const names = [...commands.map(({ name }) => name).filter((name) => name !== ''), 'help']

const typos: Record<string, string> = {
  '--sokcet': '--socket',
  '--scoket': '--socket',
  '--socet': '--socket',
  '--sockett': '--socket',
  '--soket': '--socket',
  '--snaphot': '--snapshot',
  '--snpashto': '--snapshot',
  '--snap': '--snapshot',
  '--onec': '--once',
  '--htpp': '--http',
  '--http-guest': '--http-guests',
  '--httpguests': '--http-guests',
  '--http-geusts': '--http-guests',
  '--prefetchmode': '--prefetch-mode',
  '--perfetch': '--prefetch',
  '--stat': '--stats',
  '--state': '--state-dir',
  '--statedir': '--state-dir',
  '--stata-dir': '--state-dir',
  '--state_dir': '--state-dir',
  '--stateDir': '--state-dir',
  '--log': '--log-level',
  '--faultAround': '--fault-around',
  '--fault-arround': '--fault-around',
  '--fualt-deadlien': '--fault-deadline',
  '--on-unservabel': '--on-unservable',
  '--guard': '--guardian',
  '--gaurdian': '--guardian',
  '--api': '--api-socket',
  '--templat': '--template',
  '--hepl': '--help',
}

for (const [typo, meant] of Object.entries(typos)) {
  test(`${typo} is a slip for ${meant}`, (t) => t.is(closest(typo, options), meant))
}

const wrong =
  '--max-guests --port --host --docker --verbose --quiet --debug --output --workers --threads ' +
  '--memory --memory-mode --user --daemon --force --name --log-timeout --max-level --trace-file ' +
  '--fault --fault-timeout --free --export --restart --replace --no -s --'

for (const name of wrong.split(' ')) {
  test(`${name} is none of the options, however alike`, (t) => {
    t.is(closest(name, options), undefined)
  })
}

for (const [typo, meant] of Object.entries({
  docter: 'doctor',
  docotr: 'doctor',
  rest: 'restore',
  restor: 'restore',
  stauts: 'status',
  stat: 'status',
  stpo: 'stop',
  dmup: 'dump',
  config: 'configure',
  compeltion: 'completion',
  hlep: 'help',
})) {
  test(`the command ${typo} is a slip for ${meant}`, (t) => t.is(closest(typo, names), meant))
}

for (const name of ['serve', 'start', 'restart', 'run', 'state', 'export', 'show', 'list', 'ps']) {
  test(`${name} is none of the commands, however alike`, (t) => {
    t.is(closest(name, names), undefined)
  })
}

test('what is no name at all is like none', (t) => {
  for (const name of ['', '-', 'ß', '__proto__', '🙂', 'x'.repeat(10_000)]) {
    t.is(closest(name, options), undefined, name.slice(0, 20))
  }
})
