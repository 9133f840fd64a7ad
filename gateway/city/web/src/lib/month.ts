/** The month of a date, or so many months after another one: `2026-11`. */
export function monthOf(month = '', later = 0): string {
  const now = new Date()
  const [year, number] = month ? month.split('-').map(Number) : [now.getFullYear(), now.getMonth() + 1]
  const count = (year ?? 0) * 12 + (number ?? 1) - 1 + later
  return `${Math.floor(count / 12)}-${String((count % 12) + 1).padStart(2, '0')}`
}
