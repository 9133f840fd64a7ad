import type { Sensor } from './api'

const MOST = 3
const EARTH_KM = 6371

/** Kilometres along the earth between two places in degrees. */
export function distance(a: { lat: number; lon: number }, b: { lat: number; lon: number }): number {
  const rad = Math.PI / 180
  const half = (angle: number) => Math.sin((angle * rad) / 2) ** 2
  const h = half(b.lat - a.lat) + Math.cos(a.lat * rad) * Math.cos(b.lat * rad) * half(b.lon - a.lon)
  return 2 * EARTH_KM * Math.asin(Math.min(1, Math.sqrt(h)))
}

/** The nearest sensors of the same kind that measure a quantity too. */
export function neighboursOf(sensor: Sensor, quantity: string, all: readonly Sensor[]): { sensor: Sensor; km: number }[] {
  const { lat, lon } = sensor
  if (lat === null || lon === null) return []
  return all
    .flatMap((other) => {
      const same = other.id !== sensor.id && other.kind === sensor.kind && other.readings.some((r) => r.quantity === quantity)
      return same && other.lat !== null && other.lon !== null ? [{ sensor: other, km: distance({ lat, lon }, { lat: other.lat, lon: other.lon }) }] : []
    })
    .sort((a, b) => a.km - b.km)
    .slice(0, MOST)
}
