export * from '../../../src/testing/firecracker-api/published.js'
