import { type NativeServer } from '#native'

const open = new Set<NativeServer>()

/** `process.exit` tells JavaScript, and not the native part. */
const abandonAll = () => {
  for (const server of open) server.abandon()
}

/** Removes the server's socket when the process exits without having closed it. */
export function leaveNothingAtExit(server: NativeServer): void {
  if (open.size === 0) process.on('exit', abandonAll)
  open.add(server)
}

/** The server was closed: its socket is gone. */
export function nothingToLeave(server: NativeServer): void {
  open.delete(server)
  if (open.size === 0) process.off('exit', abandonAll)
}
