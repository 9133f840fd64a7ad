/** The city HTTP API: its shapes, and one way to call it. */

export type Language = 'zh' | 'en' | 'ko'
export type Title = Record<Language, string>
export type Severity = 'blue' | 'yellow' | 'orange' | 'red'
export type State = 'fresh' | 'stale' | 'silent'
/** A QARTOD flag: 1 good, 2 not evaluated, 3 suspect, 4 fail, 9 missing. */
export type Flag = 1 | 2 | 3 | 4 | 9

export interface Reading {
  quantity: string
  value: number | null
  unit: string
  flag: Flag
  time: string
}

export interface Sensor {
  id: string
  kind: string
  site: string
  sensor: string
  gateway: string
  title: Title | null
  site_title: Title | null
  lat: number | null
  lon: number | null
  time: string
  age_s: number
  interval_s: number
  state: State
  flag: Flag
  readings: Reading[]
  /** Why it is in maintenance, if it is. */
  maintenance: { case: number | null; until: string | null; window: number | null } | null
  declare: string | null
}

export interface EventLimit {
  severity: Severity
  above?: number | null
  below?: number | null
}

export interface Quantity {
  name: string
  title: Title
  unit: string
  decimals: number
  suspect: [number, number] | null
  fail: [number, number] | null
  events: EventLimit[]
}

export interface Kind {
  kind: string
  title: Title
  quantities: Quantity[]
}

export interface CityEvent {
  id: string
  time: string
  severity: Severity | 'none'
  kind: string
  site: string
  sensor: string
  sensor_id: string
  gateway: string
  quantity: string
  value: number | null
  limit: number | null
  message: string
  since: string
  until: string | null
}

export interface AlertEvent extends CityEvent {
  rule: Title | null
}

/** Where the wind came from at a site of an alert; degrees, m/s. */
export interface Sector {
  site: string
  direction: number
  start: number
  end: number
  speed: number
  calm: boolean
}

export interface Source {
  id: string
  title: Title | null
  distance_km: number
  sites: string[]
}

export interface Upstream {
  sensor_id: string
  site: string
  title: Title | null
  upstream_km: number
  quantity: string
  value: number | null
  unit: string
  event: Severity | null
}

/** Events with one cause. */
export interface Alert {
  id: string
  cause: string
  title: Title
  severity: Severity
  state: 'open' | 'acknowledged' | 'ended'
  since: string
  until: string | null
  sites: string[]
  events: AlertEvent[]
  wind: Sector[]
  sources: Source[]
  upstream: Upstream[]
  acknowledged: { time: string; by: string; note: string } | null
  /** All of its events were faults of their sensors: the first one, as verdicts call it, or maintenance. */
  withdrawn: string | null
}

export interface Gateway {
  gateway: string
  time: string
  age_s: number
  state: State
  version: string
  uptime_s: number
  ledger: Record<'received' | 'delivered' | 'queued' | 'quarantined' | 'dead' | 'duplicate' | 'evicted', number>
  spool_bytes: number
  rss_bytes: number
  sensors: number
  /** What else it says of itself, by the names of the data model. */
  more: Partial<Record<GatewayFact, number>>
}

export type GatewayFact =
  | 'disk_free_bytes' | 'cpu_s' | 'messages' | 'dead_letters' | 'channels' | 'channels_learning' | 'sensors_silent'
  | 'devices_undeclared' | 'clock_known' | 'connected' | 'stuck' | 'ledger_mismatches' | 'times_future' | 'times_past' | 'loose'

export interface TownMap {
  center: [number, number] | null
  zoom: number | null
  districts: GeoJSON.FeatureCollection | null
  sites: GeoJSON.FeatureCollection
  basemap: string | null
  title: Title | null
}

export interface SensorDetail extends Sensor {
  quantities: Quantity[]
  events: CityEvent[]
}

/** Raw points are [ms, value, flag]; with a step [ms, mean, worst flag, min, max]. */
export type Point = [number, number | null, Flag, (number | null)?, (number | null)?]

export interface Series {
  id: string
  quantity: string
  unit: string
  start: string
  end: string
  step: number | null
  points: Point[]
  quarantined: [number, number, Flag, string][]
  quarantined_total: number
}

export type AirIndexName = 'cn' | 'kr' | 'us'

export interface AirIndex {
  value: number | null
  level: string | null
  primary: string[]
  sub: Record<string, number>
  provisional: boolean
  hours: number | null
}

export interface PlaceGrades {
  place: string
  title: Title | null
  air: { stations: number; now: Record<AirIndexName, AirIndex>; day: Record<AirIndexName, AirIndex> } | null
  traffic: { roads: number; index: number; level: string } | null
  parking: { left: number; capacity: number } | null
}

export interface Section {
  sensor_id: string
  level: string
  worst: string[]
  values: Record<string, number>
  target: string | null
  over: boolean
}

export interface NoiseLevel {
  level: number
  limit: number
  over: boolean
}

export interface Meter {
  sensor_id: string
  zone: string
  period: 'day' | 'night'
  now: NoiseLevel | null
  day: NoiseLevel | null
  night: NoiseLevel | null
}

export interface Road {
  sensor_id: string
  speed: number
  level: string
  index: number
  empty: boolean
}

export interface Grades {
  time: string
  town: PlaceGrades
  sites: PlaceGrades[]
  water: Section[]
  noise: Meter[]
  roads: Road[]
}

export interface Level {
  name: string
  title: Title
  colour: string
  upto: number | null
}

export interface Scale {
  title: Title
  source: string
  levels: Level[]
}

export interface Scales {
  air: Record<AirIndexName, Scale>
  water: Scale
  noise: Scale
  traffic: Scale
  zones: Record<string, { title: Title; day: number; night: number }>
}

/** An answer other than 2xx; `message` is the server's problem detail. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message)
  }
}

export async function call<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await fetch(path, { credentials: 'same-origin', signal: AbortSignal.timeout(15000), ...init })
  if (!response.ok) {
    const problem = (await response.json().catch(() => ({}))) as { detail?: unknown; title?: unknown }
    throw new ApiError(response.status, String(problem.detail ?? problem.title ?? response.statusText))
  }
  return (response.status === 204 ? undefined : await response.json().catch(() => undefined)) as T
}

export const getHealth = () => call<{ time: string }>('/api/health')
export const getKinds = () => call<{ kinds: Kind[] }>('/api/v1/kinds')
export const getScales = () => call<Scales>('/api/v1/scales')
export const getMap = () => call<TownMap>('/api/v1/map')
export const getSensors = () => call<{ time: string; sensors: Sensor[] }>('/api/v1/sensors')
export const getEvents = () => call<{ events: CityEvent[] }>('/api/v1/events?limit=200')
export const getGateways = () => call<{ gateways: Gateway[] }>('/api/v1/gateways')
export const getSensor = (id: string) => call<SensorDetail>(`/api/v1/sensors/${encodeURIComponent(id)}`)

/** With `most`, never more points than that; steps of hours and days are the viewer's. */
export function getSeries(id: string, quantity: string, start: number, end: number, step: number | null, most: number | null = null) {
  const query = new URLSearchParams({ quantity, start: String(Math.floor(start)), end: String(Math.ceil(end)) })
  if (step !== null) query.set('step', String(step))
  if (most !== null) {
    query.set('most', String(most))
    query.set('offset', String(new Date(start).getTimezoneOffset() * 60))
  }
  return call<Series>(`/api/v1/sensors/${encodeURIComponent(id)}/series?${query.toString()}`)
}

/** How much of a time a sensor has readings of. */
export interface Wholeness {
  start: string
  end: string
  step: number
  availability: number | null
  flags: Partial<Record<string, number>>
  gaps: { start: string; end: string; seconds: number }[]
  gaps_total: number
}

export const getWholeness = (id: string, start: number, end: number) =>
  call<Wholeness>(`/api/v1/sensors/${encodeURIComponent(id)}/wholeness?start=${Math.floor(start)}&end=${Math.ceil(end)}`)

/** A sensor as it was. */
export interface PastSensor {
  id: string
  state: State
  flag: Flag
  severity: Severity | null
  time: string
  values: Record<string, number | null>
}

export interface Past {
  time: string
  resolution_s: number
  sensors: PastSensor[]
  events: CityEvent[]
}

/** The town as it was at a time in ms. */
export const getPast = (at: number) => call<Past>(`/api/v1/past?at=${at}`)

/** The last day of a sensor by the hour, as [ms, mean], and the mean of this hour on the days before. */
export interface Course {
  id: string
  points: [number, number][]
  usual: number | null
  days: number
}

export interface Courses {
  courses: Course[]
}

export const getCourses = (kind: string, quantity: string) => call<Courses>(`/api/v1/courses?${new URLSearchParams({ kind, quantity }).toString()}`)

export type Credentials = { token: string } | { name: string; password: string }
export interface Who {
  name: string
  role: string
  person: number | null
  districts: string[]
  departments: string[]
  single_sign_on: boolean
  /** Nobody can sign in yet. */
  alone: boolean
  csrf: string | null
}

const DESK = ['operator', 'dispatcher', 'administrator']

/** Whether a role is one of the operations centre's: it takes notice of alerts, opens cases and declares maintenance. */
export const isDesk = (role = '') => DESK.includes(role)

export type CaseState = 'reported' | 'filed' | 'dispatched' | 'handling' | 'verifying' | 'deferred' | 'closed' | 'refused' | 'void' | 'merged'
export type CaseStatus = 'in time' | 'running out' | 'late' | 'paused' | 'ended'

export interface Case {
  id: number
  receipt: string
  source: string
  kind: string
  severity: Severity | null
  text: string
  district: string | null
  site: string | null
  sensor: string | null
  lat: number | null
  lon: number | null
  /** Ids of the alerts that belong to it. */
  alerts: string[]
  state: CaseState
  department: string | null
  opened: string
  entered: string
  due: string | null
  closed: string | null
  status: CaseStatus
  merged_into: number | null
  asked: { what: 'return' | 'void' | 'extension' | 'deferral'; by: string; note: string; hours: number | null } | null
}

/** Of what staff add photographs. */
export type Stage = 'before' | 'after'

export interface CaseDetail extends Case {
  allowed: string[]
  may_add: Stage[]
  photos: { id: number; stage: Stage | 'report'; time: string; who: string }[]
  steps: { time: string; who: string; action: string; state: CaseState; note: string; detail: Record<string, unknown> }[]
}

export interface CaseClasses {
  classes: { kind: string; title: Title; department: string }[]
  departments: { department: string; title: Title }[]
}

/** Shares from 0 to 1, null where nothing is counted. */
export interface Shares {
  reported: number
  filing_rate: number | null
  accurate_dispatch_rate: number | null
  handled_on_time: number | null
  closed_on_time: number | null
  rework_rate: number | null
  hours_per_case: number | null
  closed_by_themselves: number
}

/** The figures of a class, a district or a department; null for cases that have none. */
export interface MonthRow extends Shares {
  name: string | null
}

export interface Month {
  month: string
  start: string
  end: string
  over: boolean
  goal_hours: number
  total: Shares
  classes: MonthRow[]
  districts: MonthRow[]
  departments: MonthRow[]
  alerts: ({ kind: string } & Record<Severity, number>)[]
  sensors: { kind: string; sensors: number; availability: number | null }[]
  worst: { id: string; availability: number }[]
}

export interface Figures extends Shares {
  days: number
  by_state: Record<CaseState, number>
  goal_hours: number
}

function post(path: string, body: unknown) {
  return call<unknown>(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
}

export const signIn = (credentials: Credentials) => post('/api/v1/session', credentials)
export const getWho = () => call<Who>('/api/v1/session')
/** A change by whoever has signed in; it repeats the session's csrf. */
export async function change<T>(path: string, body: unknown, method = 'POST', more: Record<string, string> = {}) {
  const headers = { 'content-type': 'application/json', 'X-CSRF-Token': (await getWho()).csrf ?? '', ...more }
  return call<T>(path, { method, headers, body: JSON.stringify(body) })
}

/** Declares that a sensor is worked on from now on, for some hours. */
export const declareMaintenance = (sensor: Sensor, hours: number, note: string) =>
  change<unknown>('/api/v1/maintenance', {
    site: sensor.site, sensor: sensor.sensor, kind: sensor.kind, note,
    until: new Date(Date.now() + hours * 3_600_000).toISOString(),
  })
export const endMaintenance = async (window: number) =>
  call<unknown>(`/api/v1/maintenance/${window}`, { method: 'DELETE', headers: { 'X-CSRF-Token': (await getWho()).csrf ?? '' } })

export const getCases = (openOnly: boolean, limit = 500) => call<{ incidents: Case[] }>(`/api/v1/incidents?limit=${limit}&open=${String(openOnly)}`)
/** The newest cases that began with a sensor. */
export const getCasesOf = (sensor: string) => call<{ incidents: Case[] }>(`/api/v1/incidents?limit=10&sensor=${encodeURIComponent(sensor)}`)
export const getCase = (id: number) => call<CaseDetail>(`/api/v1/incidents/${id}`)
export const getCaseClasses = () => call<CaseClasses>('/api/v1/incident-classes')
export const getFigures = (days = 30) => call<Figures>(`/api/v1/incident-figures?days=${days}`)
export const getMonth = (month: string) => call<Month>(`/api/v1/months/${month}`)
export const openCase = (kind: string, text: string) => change<CaseDetail>('/api/v1/incidents', { kind, text })
export const takeStep = (id: number, step: Record<string, unknown>) => change<CaseDetail>(`/api/v1/incidents/${id}/steps`, step)
export const addPhoto = async (id: number, stage: Stage, photo: Blob) =>
  call<CaseDetail>(`/api/v1/incidents/${id}/photos?stage=${stage}`, {
    method: 'POST',
    headers: { 'X-CSRF-Token': (await getWho()).csrf ?? '' },
    body: photo,
    signal: AbortSignal.timeout(60_000),
  })
/** Signs out; whether whoever it was came by the single sign-on, where they still are signed in. */
export async function signOut(): Promise<boolean> {
  const who = await getWho()
  await call<unknown>('/api/v1/session', { method: 'DELETE', headers: { 'X-CSRF-Token': who.csrf ?? '' } })
  return who.single_sign_on
}
export const acknowledge = (id: string, by: string, csrf: string | null) =>
  call<Alert>(`/api/v1/alerts/${encodeURIComponent(id)}/acknowledge`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'X-CSRF-Token': csrf ?? '' },
    body: JSON.stringify({ by }),
  })
/** What the city's single sign-on is called; null if there is none. */
export const getSingleSignOn = () => call<{ title: Title | null }>('/api/v1/oidc')
/** Whom a one-time link lets choose a password. */
export const whoseLink = (link: string) => call<{ name: string }>('/api/v1/link', { headers: { 'X-Link': link } })
export const useLink = (link: string, password: string) => post('/api/v1/link', { link, password })
export const getAlerts = () => call<{ alerts: Alert[] }>('/api/v1/alerts?limit=100')


export interface ReportStatus {
  receipt: string
  kind: string
  state: CaseState
  opened: string
  entered: string
  steps: CaseState[]
}

export const getReportClasses = () => call<{ classes: { kind: string; title: Title }[] }>('/api/v1/report-classes')
export const sendReport = (report: { kind: string; text: string; lat: number | null; lon: number | null }) => post('/api/v1/reports', report) as Promise<{ receipt: string }>
/** With `place`, the report gets the position that the photograph holds. */
export const sendPhoto = (receipt: string, photo: Blob, place: boolean) =>
  call<unknown>(`/api/v1/reports/${encodeURIComponent(receipt)}/photo?place=${String(place)}`, { method: 'PUT', body: photo, signal: AbortSignal.timeout(60_000) })
export const getReport = (receipt: string) => call<ReportStatus>(`/api/v1/reports/${encodeURIComponent(receipt)}`)
