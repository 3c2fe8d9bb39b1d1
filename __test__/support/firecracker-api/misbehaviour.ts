export * from '../../../src/testing/firecracker-api/misbehaviour.js'
