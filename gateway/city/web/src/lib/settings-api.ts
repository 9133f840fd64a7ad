/** What the settings ask of the API. */
import { call, change, type Severity, type Title } from './api'

export interface Session {
  id: string
  created: string
  expires: string
  address: string
  agent: string
  this: boolean
}

export interface Token {
  id: number
  label: string
  scope: 'read' | 'write'
  created: string
  expires: string
  expired: boolean
}

export interface Person {
  id: number
  name: string
  title: string
  role: string
  districts: string[]
  departments: string[]
  disabled: boolean
  active: boolean
  single_sign_on: boolean
  created: string
  last_sign_in: string | null
}

export type PersonChange = Partial<Pick<Person, 'title' | 'role' | 'districts' | 'departments' | 'disabled'>>

export interface AuditLine {
  id: number
  time: string
  who: string
  address: string
  action: string
  about: string
  detail: Record<string, unknown>
}

/** The keys of a rule, as in the file. */
export type Settings = Record<string, unknown>

export interface Rule {
  name: string
  title: Title
  severity: Severity
  enabled: boolean
  of_page: boolean
  in_file: boolean
  settings: Settings
  watched: number
  running: number
}

export interface Tried {
  days: number
  step: number
  watched: number
  times: number
  events: { sensor: string; since: string; until: string | null }[]
}

/** Maintenance that somebody declared. */
export interface Window {
  id: number
  site: string
  sensor: string
  kind: string
  since: string
  until: string
  note: string
  who: string
}

export const getRules = () => call<{ problem: string; tag: string; rules: Rule[] }>('/api/v1/rules')
/** Adds a rule, or changes the one of a name, unless somebody else has changed the rules since they had this tag. */
export const saveRule = (settings: Settings, tag: string, name: string | null) =>
  change<Rule>(name === null ? '/api/v1/rules' : `/api/v1/rules/${encodeURIComponent(name)}`, settings, name === null ? 'POST' : 'PUT', { 'If-Match': `"${tag}"` })
export const removeRule = (name: string, tag: string) => change(`/api/v1/rules/${encodeURIComponent(name)}`, undefined, 'DELETE', { 'If-Match': `"${tag}"` })
export const tryRule = (settings: Settings) => change<Tried>('/api/v1/rules/try', settings)
export const getWindows = () => call<{ windows: Window[] }>('/api/v1/maintenance')
export const declareWindow = (window: Record<string, string>) => change<Window>('/api/v1/maintenance', window)
export const changePassword = (old: string, fresh: string) => change('/api/v1/session/password', { old, new: fresh }, 'PUT')
export const getSessions = () => call<{ sessions: Session[] }>('/api/v1/sessions')
export const endSession = (id: string) => change(`/api/v1/sessions/${id}`, undefined, 'DELETE')
export const endOtherSessions = () => change('/api/v1/sessions', undefined, 'DELETE')
export const getTokens = () => call<{ tokens: Token[] }>('/api/v1/tokens')
export const makeToken = (label: string, scope: string, days: number) => change<{ token: string; about: Token }>('/api/v1/tokens', { label, scope, days })
export const revokeToken = (id: number) => change(`/api/v1/tokens/${id}`, undefined, 'DELETE')
export const getPeople = () => call<{ people: Person[] }>('/api/v1/people')
export const addPerson = (person: PersonChange & { name: string }) => change<{ person: Person; link: string }>('/api/v1/people', person)
export const changePerson = (id: number, what: PersonChange) => change<Person>(`/api/v1/people/${id}`, what, 'PATCH')
export const makeLink = (id: number) => change<{ person: Person; link: string }>(`/api/v1/people/${id}/link`, {})
export const auditPath = (path: string, query: Record<string, string>): string => {
  const said = Object.entries(query).filter(([, value]) => value !== '')
  return `/api/v1/${path}?${new URLSearchParams(said).toString()}`
}
export const getAudit = (query: Record<string, string>) => call<{ audit: AuditLine[] }>(auditPath('audit', query))
