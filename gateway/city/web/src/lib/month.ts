/** The month so many months after another one, as `2026-11`. */
export function monthAfter(month: string, later: number): string {
  const [year, number] = month.split('-').map(Number)
  const count = (year ?? 0) * 12 + (number ?? 1) - 1 + later
  return `${Math.floor(count / 12)}-${String((count % 12) + 1).padStart(2, '0')}`
}
