/**
 * Every code an error of this package can carry, and what it means.
 * A code never changes its meaning; messages may.
 */
export const errorCodes = {
  ERR_UFFD_INVALID_OPTION:
    'an option or argument has a wrong name, type or value; the message names it',
  ERR_UFFD_ABORTED: 'an AbortSignal fired before what it belongs to was done',
  ERR_UFFD_PLATFORM: 'this system cannot run uffd-rs: Linux on x64 or arm64 is needed',
  ERR_UFFD_INTERNAL: 'a defect of uffd-rs; please report it',

  ERR_UFFD_SNAPSHOT_MISSING: 'there is no snapshot file at this path',
  ERR_UFFD_SNAPSHOT_DENIED: 'no permission to read the snapshot file',
  ERR_UFFD_SNAPSHOT_NOT_A_FILE: 'the snapshot is a directory, a socket or the like',
  ERR_UFFD_SNAPSHOT_EMPTY: 'the snapshot file has no bytes',
  ERR_UFFD_SNAPSHOT_LENGTH: 'the snapshot file ends within a page, so it is no whole memory file',
  ERR_UFFD_SNAPSHOT_IO: 'the snapshot file cannot be opened or mapped',

  ERR_UFFD_SOCKET_PATH: 'the path of the socket is no path of a file',
  ERR_UFFD_SOCKET_PATH_TOO_LONG: 'the path of the socket is longer than Linux takes',
  ERR_UFFD_SOCKET_NO_DIRECTORY: 'the directory of the socket does not exist',
  ERR_UFFD_SOCKET_DENIED: 'no permission to make the socket, or to take over the one there is',
  ERR_UFFD_SOCKET_OWNER: 'the socket cannot be given to the user and group of `socketOwner`',
  ERR_UFFD_SOCKET_NOT_A_SOCKET: 'something else than a socket is at its path',
  ERR_UFFD_SOCKET_IN_USE: 'another process listens on the socket',
  ERR_UFFD_SOCKET_REPLACED: 'somebody put something else in place of the socket',
  ERR_UFFD_SOCKET_INHERITED: 'the socket of the service manager cannot be used as it is',
  ERR_UFFD_SOCKET_IO: 'the kernel refused the socket for another reason',
  ERR_UFFD_RESOURCES: 'descriptors, threads or memory that serving needs cannot be had',

  ERR_UFFD_HTTP: 'figures cannot be served over HTTP at the address given; the message says why',
  ERR_UFFD_CONTROL:
    'a server cannot be controlled there, or there is none that can be asked; the message says why',
  ERR_UFFD_SERVER_CLOSED: 'the server was closed, so that no guest will come',
  ERR_UFFD_ACCEPT_TIMEOUT: 'no guest came before the deadline',
  ERR_UFFD_ACCEPT: 'the socket broke and accepts no guest any more',
  ERR_UFFD_ACCEPT_EXHAUSTED: 'no descriptor is free to accept a guest; it waits',
  ERR_UFFD_ACCEPT_CROWDED:
    'too many connections wait to be closed; it waits before it accepts more',
  ERR_UFFD_ACCEPT_LOST: 'a connection was lost while it was accepted',

  ERR_UFFD_HANDOFF_JSON: 'a guest was refused: its message is no JSON array of regions',
  ERR_UFFD_HANDOFF_FIELD: 'a guest was refused: a field of a region is missing or wrong',
  ERR_UFFD_HANDOFF_PAGE_SIZE: 'a guest was refused: its page size cannot be served',
  ERR_UFFD_HANDOFF_REGION: 'a guest was refused: its regions cannot lie as they do',
  ERR_UFFD_HANDOFF_SNAPSHOT: 'a guest was refused: the snapshot is too short for it',
  ERR_UFFD_HANDOFF_DESCRIPTOR: 'a guest was refused: it sent no userfaultfd, or two',
  ERR_UFFD_HANDOFF_TRUNCATED: 'a guest was refused: its descriptors did not all arrive',
  ERR_UFFD_HANDOFF_TOO_LARGE: 'a guest was refused: its message is too long',
  ERR_UFFD_HANDOFF_TIMEOUT: 'a guest was refused: it took too long for its handoff',
  ERR_UFFD_HANDOFF_CLOSED: 'a guest was refused: it hung up before its handoff was complete',
  ERR_UFFD_HANDOFF_TWICE: 'a guest was refused: its userfaultfd was handed off before',
  ERR_UFFD_HANDOFF_OWN_MEMORY: 'a guest was refused: its memory is that of this very process',
  ERR_UFFD_MAX_GUESTS: 'a guest was refused: the server has as many as it may have',
  ERR_UFFD_MAX_GUESTS_PER_PROCESS:
    'a guest was refused: its process has handed off as many as it may',
  ERR_UFFD_HANDOFF_CANCELLED: 'a handoff was given up because the server was closed',
  ERR_UFFD_HANDOFF_IO: 'a handoff failed for a reason of the kernel',
  ERR_UFFD_FEATURES: 'a guest was refused: its userfaultfd has features that cannot be served',
  ERR_UFFD_DIRTY_TRACKING: 'a guest was refused: its dirty pages cannot be tracked',

  ERR_UFFD_BUSY:
    'a guest was refused: it gives memory back so fast that nothing can be asked of it',
  ERR_UFFD_STATE_DIR: 'the state directory cannot keep guests; the message says what to change',
  ERR_UFFD_STATE_DIR_IN_USE: 'another server has the state directory',
  ERR_UFFD_STATE_DIR_OCCUPIED: 'a restore is for one guest, and others were left in its directory',
  ERR_UFFD_NO_STATE_DIR: 'guests can be handed over only by a server with a state directory',
  ERR_UFFD_GUARDIAN: 'the guardian cannot be started, or was lost',
  ERR_UFFD_GUARDIAN_SILENT: 'the guardian does not answer: it is frozen or busy',
  ERR_UFFD_GUARDIAN_VERSION: 'the guardian is of another version, and its guests stay with it',
  ERR_UFFD_GUARDIAN_UNGUARDED: 'the guardian could not serve a guest; the message says why',
  ERR_UFFD_SERVICE_MANAGER: 'the service manager cannot be told anything',
  ERR_UFFD_SERVICE_MANAGER_ENVIRONMENT:
    'what the service manager has told by the environment cannot be',
  ERR_UFFD_SERVICE_MANAGER_STORE: 'the service manager does not keep the userfaultfd of a guest',
  ERR_UFFD_SERVICE_MANAGER_STRAY:
    'the service manager kept something that is of no use; it is removed',
  ERR_UFFD_RECOVERY_LEDGER: 'a guest is not taken over: its ledger is damaged or not its own',
  ERR_UFFD_RECOVERY_ENDED: 'a guest is not taken over: it has ended',
  ERR_UFFD_RECOVERY_NAMESPACE: 'a guest is not taken over: it is in another pid or time namespace',
  ERR_UFFD_RECOVERY_SNAPSHOT:
    'a guest is not taken over: it has another snapshot, or one that cannot be compared',
  ERR_UFFD_RECOVERY_DESCRIPTOR: 'a guest is not taken over: its userfaultfd cannot be had',
  ERR_UFFD_RECOVERY_MEMORY: 'a guest is not taken over: its memory is not where its ledger says',
  ERR_UFFD_RECOVERY_SERVED: 'a guest is not taken over: another process serves it',
  ERR_UFFD_HAND_OVER: 'guests were handed over, and nobody has them',
  ERR_UFFD_RELEASE_TRACKED: 'a guest is not released: its writes are tracked',
  ERR_UFFD_RELEASE_SOURCE: 'a guest is not released: bytes of its snapshot cannot be read',
  ERR_UFFD_RELEASE_MEMORY: 'a guest is not released: there is no memory for all of its pages',
  ERR_UFFD_RELEASE_MAPPINGS:
    'a guest is not released: its process has as many mappings as it may have (vm.max_map_count)',
  ERR_UFFD_RELEASE_UNDER_WAY: 'a guest is being released already',

  ERR_UFFD_EVENTS: 'a guest failed: its page faults cannot be read',
  ERR_UFFD_STRAY_FAULT: 'a guest failed: it touched memory its handoff did not name',
  ERR_UFFD_REFUSED: 'a guest failed: the kernel refused to install a page',
  ERR_UFFD_PAGE: 'a guest failed: a page cannot be had; see `page`, `offset` and the message',
  ERR_UFFD_NO_SUCH_PAGES: 'pages were asked for that no region of the guest has',
  ERR_UFFD_HUGE_PAGES:
    'the pool of 2 MiB pages cannot hold a guest beside what others were promised; see its numbers',
  ERR_UFFD_GUEST_ENDED: 'the guest ended before the answer',

  ERR_UFFD_REPORT: 'a report cannot be saved, or made of what was given; the message says why',
  ERR_UFFD_TRACE_LOAD: 'the trace file cannot be opened or read',
  ERR_UFFD_TRACE_NOT_A_TRACE: 'the file does not start like a trace',
  ERR_UFFD_TRACE_TOO_LARGE: 'the file starts like a trace and is larger than 256 MiB',
  ERR_UFFD_TRACE_VERSION: 'the trace needs a newer version of uffd-rs',
  ERR_UFFD_TRACE_DAMAGED: 'the length or the checksum of the trace is wrong',
  ERR_UFFD_TRACE_INVALID: 'the trace has an impossible field: its writer is at fault',
  ERR_UFFD_TRACE_ENTRY: 'a page of the trace is not of the snapshot, or comes twice',
  ERR_UFFD_TRACE_JSON: 'the JSON view of a trace is not one',
  ERR_UFFD_TRACE_WRONG_SNAPSHOT: 'the trace is of another snapshot, or of pages of another size',
  ERR_UFFD_TRACE_NO_SPACE: 'there is no room to save the trace',
  ERR_UFFD_TRACE_SAVE: 'the trace cannot be saved for another reason',
  ERR_UFFD_TRACE_SNAPSHOT: 'the snapshot cannot be read to tell which it is, or was replaced',

  ERR_UFFD_TESTING: 'a guest process or a stand-in for tests cannot do what it was asked for',

  ERR_UFFD_INVALID_TEMPLATE: 'a sandbox template cannot be read or one of its fields is wrong',
  ERR_UFFD_FIRECRACKER_ABORTED: 'the AbortSignal of a request fired before its answer came',
  ERR_UFFD_FIRECRACKER_ACCESS: 'no permission to connect to the API socket',
  ERR_UFFD_FIRECRACKER_BAD_ANSWER:
    'the answer was cut short, is not HTTP or not the published JSON',
  ERR_UFFD_FIRECRACKER_BAD_VERSION: 'the version cannot be understood',
  ERR_UFFD_FIRECRACKER_CLOSED: 'the client was closed',
  ERR_UFFD_FIRECRACKER_CONNECTION_LOST:
    'Firecracker hung up before it answered; it may have exited',
  ERR_UFFD_FIRECRACKER_HTTP: 'Firecracker refused the request; see `status` and `faultMessage`',
  ERR_UFFD_FIRECRACKER_NOT_FRESH: 'a restore needs a Firecracker that has no microVM yet',
  ERR_UFFD_FIRECRACKER_REFUSED: 'the API socket exists, but nothing accepts connections there',
  ERR_UFFD_FIRECRACKER_SOCKET_MISSING: 'there is no API socket at this path',
  ERR_UFFD_FIRECRACKER_TIMEOUT: 'no answer within the deadline',
  ERR_UFFD_FIRECRACKER_UNSUPPORTED: 'this version of Firecracker lacks what was asked for',
  ERR_UFFD_RESTORE_ABORTED: 'a restore was given up because its AbortSignal fired',
  ERR_UFFD_RESTORE_TEMPLATE: 'a restore failed: its template cannot be read, or says otherwise',
  ERR_UFFD_RESTORE_PREFETCH: 'a restore failed: the trace to prefetch cannot be used',
  ERR_UFFD_RESTORE_VERSION:
    'a restore failed: Firecracker did not answer, lacks what was asked for, or has a microVM',
  ERR_UFFD_RESTORE_POOL: 'a restore failed: the pool of huge pages cannot hold the guest',
  ERR_UFFD_RESTORE_LISTEN: 'a restore failed: the handler cannot listen',
  ERR_UFFD_RESTORE_LOAD: 'a restore failed: Firecracker did not load the snapshot',
  ERR_UFFD_RESTORE_HANDOFF: 'a restore failed: the guest memory was not handed off, or refused',
  ERR_UFFD_RESTORE_VERIFY: 'a restore failed: the restored microVM is not the one described',
  ERR_UFFD_RESTORE_RESUME: 'a restore failed: the microVM cannot be resumed',
  ERR_UFFD_PAUSE_AND_SNAPSHOT_ABORTED: 'a snapshot was given up because its AbortSignal fired',
  ERR_UFFD_PAUSE_AND_SNAPSHOT_BUSY: 'another snapshot of the same microVM is being made',
  ERR_UFFD_PAUSE_AND_SNAPSHOT_DRAIN: 'a snapshot failed: free page hinting cannot be stopped',
  ERR_UFFD_PAUSE_AND_SNAPSHOT_PAUSE: 'a snapshot failed: the microVM cannot be paused',
  ERR_UFFD_PAUSE_AND_SNAPSHOT_SETTLE: 'a snapshot failed: the handler did not settle',
  ERR_UFFD_PAUSE_AND_SNAPSHOT_EXPORT: 'a snapshot failed: its page states cannot be had',
  ERR_UFFD_PAUSE_AND_SNAPSHOT_CREATE: 'a snapshot failed: Firecracker did not write it',
  ERR_UFFD_PAUSE_AND_SNAPSHOT_RESUME: 'the snapshot is written, but the microVM cannot be resumed',
} as const

/** A stable code, to be compared instead of messages. */
export type UffdErrorCode = keyof typeof errorCodes

/** The base of every error this package throws on purpose. */
export class UffdError extends Error {
  override readonly name: string = 'UffdError'

  /** What went wrong, for programs. */
  readonly code: UffdErrorCode

  constructor(code: UffdErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** A value given to this package is not what it has to be. */
export class UffdValidationError extends UffdError {
  override readonly name = 'UffdValidationError'

  /** The option or field, as a path: `balloon.amountMib`. */
  readonly field: string

  /** What was found there. */
  readonly value: unknown

  constructor(code: UffdErrorCode, message: string, field: string, value: unknown) {
    super(code, message)
    this.field = field
    this.value = value
  }
}

/** A page of a guest cannot be had or installed. */
export class UffdPageError extends UffdError {
  override readonly name = 'UffdPageError'

  /** The page: its offset in the snapshot divided by the page size. */
  readonly page: number

  /** Where the page lies in the snapshot, in bytes. */
  readonly offset: bigint

  constructor(code: UffdErrorCode, message: string, page: number, offset: bigint) {
    super(code, message)
    this.page = page
    this.offset = offset
  }
}
