export { errorCodes, UffdError, UffdValidationError, type UffdErrorCode } from './errors.js'
export * from './firecracker/index.js'
