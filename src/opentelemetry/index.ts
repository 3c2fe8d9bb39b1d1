// `uffd-rs/opentelemetry`: for programs that have @opentelemetry/api, and for no others.
export { observe, type ObserveOptions } from './observe.js'
export {
  type TracedOptions,
  tracedListen,
  tracedPauseAndSnapshot,
  tracedRestore,
} from './traced.js'
