/** A number with at most three significant digits, but never fewer than its whole part (1013 hPa stays 1013). */
export function number(value: number | null | undefined, decimals = 1): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  const room = size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2
  const text = value.toFixed(Math.min(room, Math.max(0, decimals)))
  const digits = Number(text) === 0 ? text.replace('-', '') : text
  return size >= 10000 ? digits.replace(/\B(?=(\d{3})+$)/g, '\u202f') : digits
}

/** A share from 0 to 1 in percent. */
export const share = (value: number | null): string => (value === null ? '–' : `${number(value * 100)} %`)

/** Bytes in the largest binary unit that leaves at least one whole digit. */
export function bytes(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let size = value
  let unit = 0
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024
    unit += 1
  }
  return `${number(size, unit === 0 ? 0 : 1)} ${units[unit] ?? ''}`
}

/** The largest unit of a span: what "4 min ago" counts. */
export function span(seconds: number): { n: number; unit: 'second' | 'minute' | 'hour' | 'day' } {
  if (seconds < 60) return { n: Math.floor(seconds), unit: 'second' }
  if (seconds < 3600) return { n: Math.floor(seconds / 60), unit: 'minute' }
  if (seconds < 86400) return { n: Math.floor(seconds / 3600), unit: 'hour' }
  return { n: Math.floor(seconds / 86400), unit: 'day' }
}

/** The local offset of a date as people write it: +08, +05:30. */
export function offset(date: Date): string {
  const minutes = -date.getTimezoneOffset()
  const size = Math.abs(minutes)
  const two = (n: number) => String(n).padStart(2, '0')
  const rest = size % 60 ? `:${two(size % 60)}` : ''
  return `${minutes < 0 ? '−' : '+'}${two(Math.floor(size / 60))}${rest}`
}
