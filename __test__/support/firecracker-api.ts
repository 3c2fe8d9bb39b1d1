export * from '../../src/testing/firecracker-api.js'
