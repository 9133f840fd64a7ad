/** The town as the page knows it: loaded once, then kept current by the server's stream. */
import { SvelteMap } from 'svelte/reactivity'
import * as api from './api'
import type { Alert, Case, CityEvent, Figures, Gateway, Grades, Kind, Quantity, Scales, Sensor, Severity, TownMap } from './api'
import { ageOf, stateOf } from './freshness'
import { byNeed, byUrgency, isOpen, rank } from './severity'
import { words } from './words.svelte'

/** What the event of a sensor that does not send any more names as its quantity; its value is seconds. */
export const SILENCE = 'silence'

type Phase = 'loading' | 'ready' | 'signin'

class Town {
  phase = $state<Phase>('loading')
  signedIn = $state(localStorage.getItem('citygate.signed-in') === 'yes')
  /** Whether the viewer's role takes notice of alerts. */
  atDesk = $state(false)
  /** Server time in ms, advanced each second. */
  now = $state(Date.now())
  /** The month that it is where the server is, as `2026-11`; empty before that is known. */
  month = $state('')
  lostSince = $state<number | null>(null)
  retryAt = $state<number | null>(null)
  map = $state.raw<TownMap | null>(null)
  kinds = $state.raw<Kind[]>([])
  scales = $state.raw<Scales | null>(null)
  /** Indices and grades; they come by the stream, a moment after the rest. */
  grades = $state.raw<Grades | null>(null)
  open = $state<string | null>(null)
  /** Changes whenever readings arrive. */
  pulse = $state(0)
  hiddenKinds = $state.raw<ReadonlySet<string>>(new Set(['gateways']))
  /** The newest cases that whoever looks may see, the newest first. */
  cases = $state.raw<Case[]>([])
  figures = $state.raw<Figures | null>(null)
  /** Grows with every step of a case. */
  casesVersion = $state(-1)

  readonly #sensors = new SvelteMap<string, Sensor>()
  readonly #events = new SvelteMap<string, CityEvent>()
  readonly #alerts = new SvelteMap<string, Alert>()
  readonly #gateways = new SvelteMap<string, Gateway>()
  #skew = 0
  #source: EventSource | null = null
  #retry: ReturnType<typeof setTimeout> | undefined
  #tries = 0
  #heard = Date.now()
  #busy = false
  #casesSoon: ReturnType<typeof setTimeout> | undefined

  readonly #catalogue = $derived(
    new Map(this.kinds.map((kind) => [kind.kind, { kind, quantities: new Map(kind.quantities.map((q) => [q.name, q])) }])),
  )
  /** Every sensor, its state as of now. */
  readonly sensors = $derived(
    [...this.#sensors.values()]
      .map((sensor) => {
        const age = ageOf(sensor.time, this.now)
        return { ...sensor, age_s: age, state: stateOf(age, sensor.interval_s) }
      })
      .sort((a, b) => a.id.localeCompare(b.id)),
  )
  readonly events = $derived([...this.#events.values()].sort(byUrgency))
  readonly alerts = $derived([...this.#alerts.values()].sort(byNeed))
  readonly openAlerts = $derived(this.alerts.filter((alert) => alert.state !== 'ended'))
  /** The case of each alert that has one. */
  readonly caseOf = $derived(new Map(this.cases.flatMap((item) => item.alerts.map((alert) => [alert, item] as const))))
  readonly gateways = $derived(
    [...this.#gateways.values()].sort((a, b) => a.gateway.localeCompare(b.gateway)).map((gateway) => {
      const age = ageOf(gateway.time, this.now)
      return { ...gateway, age_s: age, state: stateOf(age, 10) }
    }),
  )
  readonly openEvents = $derived(this.events.filter(isOpen))
  /** The gravest open event of each sensor that has one and is not in maintenance. */
  readonly worst = $derived.by(() => {
    const worst = new Map<string, Severity>()
    for (const event of this.openEvents) {
      if (this.#sensors.get(event.sensor_id)?.maintenance) continue
      if (event.severity !== 'none' && rank(event.severity) > rank(worst.get(event.sensor_id) ?? 'none')) {
        worst.set(event.sensor_id, event.severity)
      }
    }
    return worst
  })
  readonly presentKinds = $derived.by(() => {
    const present = new Set([...this.#sensors.values()].map((sensor) => sensor.kind))
    const order = this.kinds.map((kind) => kind.kind)
    return [...order.filter((kind) => present.has(kind)), ...[...present].filter((kind) => !order.includes(kind)).sort()]
  })
  /** Grades are made each few seconds; what is older than a minute must not look live. */
  readonly gradesOld = $derived(this.grades !== null && ageOf(this.grades.time, this.now) > 60)
  readonly liveCount = $derived(this.sensors.filter((sensor) => sensor.state === 'fresh').length)
  readonly dataAge = $derived(this.sensors.length ? Math.min(...this.sensors.map((sensor) => sensor.age_s)) : Infinity)

  quantity(kind: string, name: string): Quantity | undefined {
    return this.#catalogue.get(kind)?.quantities.get(name)
  }
  kindName(kind: string): string {
    return words.title(this.#catalogue.get(kind)?.kind.title, kind)
  }
  quantityName(kind: string, name: string): string {
    return name === SILENCE ? words.t('silence') : words.title(this.quantity(kind, name)?.title, name)
  }
  siteName(site: string): string {
    const feature = this.map?.sites.features.find((f) => f.properties?.site === site && !f.properties.sensor)
    return words.title(feature?.properties?.title as api.Title | undefined, site)
  }
  placeOf(sensor: Sensor): string {
    return sensor.site_title ? words.title(sensor.site_title, sensor.site) : this.siteName(sensor.site)
  }
  get(id: string): Sensor | undefined {
    return this.#sensors.get(id)
  }
  toggleKind(kind: string): void {
    const hidden = new Set(this.hiddenKinds)
    if (!hidden.delete(kind)) hidden.add(kind)
    this.hiddenKinds = hidden
  }

  /** Loads everything and follows the stream, until the page is left. */
  start(): () => void {
    const clock = setInterval(() => this.#tick(), 1000)
    void this.connect()
    return () => {
      clearInterval(clock)
      clearTimeout(this.#retry)
      this.#source?.close()
    }
  }

  /** Loads and connects; a failure shows the banner and tries again, a 401 shows the sign-in form. */
  async connect(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    clearTimeout(this.#retry)
    this.retryAt = null
    this.#source?.close()
    try {
      const [kinds, scales, map, sensors, events, alerts, gateways, who] = await Promise.all([
        api.getKinds(), api.getScales(), api.getMap(), api.getSensors(), api.getEvents(), api.getAlerts(), api.getGateways(), api.getWho(),
      ])
      this.atDesk = who.alone || api.isDesk(who.role)
      this.kinds = kinds.kinds
      this.scales = scales
      if (JSON.stringify(map) !== JSON.stringify(this.map)) this.map = map
      this.#setTime(sensors.time)
      this.#sensors.clear()
      this.#events.clear()
      this.#alerts.clear()
      this.#gateways.clear()
      this.#takeSensors(sensors.sensors)
      this.#takeEvents(events.events)
      this.#takeAlerts(alerts.alerts)
      this.#takeGateways(gateways.gateways)
      this.phase = 'ready'
      this.#follow()
    } catch (error) {
      if (error instanceof api.ApiError && error.status === 401) {
        this.phase = 'signin'
        this.lostSince = null
      } else this.#lose()
    } finally {
      this.#busy = false
    }
  }

  /** Moves the clock; a stream that has said nothing for a minute may hang, so the server is asked. */
  #tick(): void {
    this.now = Date.now() + this.#skew
    if (this.phase !== 'ready' || this.lostSince !== null || Date.now() - this.#heard < 60_000) return
    this.#heard = Date.now()
    api.getHealth().catch(() => {
      this.#source?.close()
      this.#lose()
    })
  }

  async signIn(credentials: api.Credentials): Promise<void> {
    await api.signIn(credentials)
    await this.enter()
  }

  /** Loads what a session that was just opened may see. */
  async enter(): Promise<void> {
    this.remember(true)
    this.phase = 'loading'
    await this.connect()
  }

  async signOut(): Promise<void> {
    const elsewhere = await api.signOut().catch(() => false)
    this.remember(false)
    this.open = null
    if (elsewhere) location.assign('/api/v1/oidc/farewell')
    else await this.connect()
  }

  /** Keeps whether somebody has signed in, who can sign out. */
  remember(signedIn: boolean): void {
    this.signedIn = signedIn
    localStorage.setItem('citygate.signed-in', signedIn ? 'yes' : 'no')
  }

  #follow(): void {
    const source = new EventSource('/api/v1/stream')
    this.#source = source
    const on = (name: string, take: (data: never) => void) =>
      source.addEventListener(name, (message) => {
        this.#heard = Date.now()
        take(JSON.parse((message as MessageEvent<string>).data) as never)
      })
    on('hello', (data: { time: string }) => {
      this.#setTime(data.time)
      this.lostSince = null
      this.#tries = 0
    })
    on('sensors', (data: { time: string; sensors: Sensor[] }) => {
      this.#setTime(data.time)
      this.#takeSensors(data.sensors)
    })
    on('events', (data: { events: CityEvent[] }) => this.#takeEvents(data.events))
    on('alerts', (data: { alerts: Alert[] }) => this.#takeAlerts(data.alerts))
    on('cases', (data: { version: number }) => {
      if (data.version === this.casesVersion) return
      clearTimeout(this.#casesSoon)
      // many pages are told at the same moment, and should not all ask at the same moment
      this.#casesSoon = setTimeout(() => void this.#loadCases(data.version), Math.random() * 500)
    })
    on('grades', (data: Grades) => (this.grades = data))
    on('gateways', (data: { gateways: Gateway[] }) => this.#takeGateways(data.gateways))
    source.onerror = () => {
      source.close()
      this.#lose()
    }
  }

  async #loadCases(version: number): Promise<void> {
    try {
      const [list, figures] = await Promise.all([api.getCases(false, 100), api.getFigures()])
      this.cases = list.incidents
      this.figures = figures
      this.casesVersion = version
    } catch {
      this.#source?.close()
      this.#lose()
    }
  }

  #lose(): void {
    if (this.phase === 'signin') return
    clearTimeout(this.#retry)
    this.lostSince ??= this.now
    const wait = Math.min(30, 2 ** this.#tries) * 1000
    this.#tries += 1
    this.retryAt = this.now + wait
    this.#retry = setTimeout(() => void this.connect(), wait)
  }

  #setTime(time: string): void {
    const at = Date.parse(time)
    if (Number.isNaN(at)) return
    this.month = time.slice(0, 7)
    this.#skew = at - Date.now()
    this.now = at
  }

  #takeSensors(sensors: Sensor[]): void {
    for (const sensor of sensors) this.#sensors.set(sensor.id, sensor)
    if (sensors.length) this.pulse += 1
  }

  #takeEvents(events: CityEvent[]): void {
    for (const event of events) this.#events.set(event.id, event)
    if (this.#events.size > 600) {
      for (const event of this.events.slice(500)) if (!isOpen(event)) this.#events.delete(event.id)
    }
  }

  #takeAlerts(alerts: Alert[]): void {
    for (const alert of alerts) this.#alerts.set(alert.id, alert)
    if (this.#alerts.size > 300) {
      for (const alert of this.alerts.slice(200)) if (alert.state === 'ended') this.#alerts.delete(alert.id)
    }
  }

  /** Takes notice of an alert for its operator; the page knows at once, the others by the stream. */
  async acknowledge(alert: Alert, by: string, csrf: string | null): Promise<void> {
    this.#takeAlerts([await api.acknowledge(alert.id, by, csrf)])
  }

  #takeGateways(gateways: Gateway[] | undefined): void {
    for (const gateway of gateways ?? []) this.#gateways.set(gateway.gateway, gateway)
  }
}

export const town = new Town()
