import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  plugins: [svelte()],
  worker: { format: 'es' },
  build: { target: 'es2022', chunkSizeWarningLimit: 1400 },
  server: { proxy: { '/api': 'http://127.0.0.1:8080', '/basemap.pmtiles': 'http://127.0.0.1:8080' } },
  test: { include: ['src/**/*.test.ts'] },
})
