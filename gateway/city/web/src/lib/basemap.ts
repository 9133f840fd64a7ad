/** The map's style: only what this server holds. No glyphs and no sprite are fetched; marks are drawn here. */
import type { FilterSpecification, LayerSpecification, StyleSpecification } from 'maplibre-gl'
import { QUALITY_SHAPES, SEVERITIES, SHAPES } from './severity'

const EMPTY: GeoJSON.FeatureCollection = { type: 'FeatureCollection', features: [] }

const AREA: FilterSpecification = ['==', ['geometry-type'], 'Polygon']

/** The style for a theme: ground, the optional basemap (Protomaps layers), districts, sensors. */
export function style(colour: (name: string) => string, basemap: string | null, districts: GeoJSON.FeatureCollection | null): StyleSpecification {
  const layers: LayerSpecification[] = [{ id: 'ground', type: 'background', paint: { 'background-color': colour('land') } }]
  const sources: StyleSpecification['sources'] = {
    districts: { type: 'geojson', data: districts ?? EMPTY },
    sensors: { type: 'geojson', data: EMPTY },
    calm: { type: 'geojson', data: EMPTY, cluster: true, clusterRadius: 18, clusterMaxZoom: 15 },
    wind: { type: 'geojson', data: EMPTY },
  }
  if (basemap) {
    sources.base = { type: 'vector', url: `pmtiles://${new URL(basemap, location.origin).href}` }
    const base = { source: 'base' } as const
    layers.push(
      { id: 'landuse', type: 'fill', ...base, 'source-layer': 'landuse', paint: { 'fill-color': colour('district'), 'fill-opacity': 0.6 } },
      { id: 'water', type: 'fill', ...base, 'source-layer': 'water', filter: ['==', ['geometry-type'], 'Polygon'], paint: { 'fill-color': colour('water') } },
      { id: 'rivers', type: 'line', ...base, 'source-layer': 'water', filter: ['==', ['geometry-type'], 'LineString'], paint: { 'line-color': colour('water'), 'line-width': 2 } },
      { id: 'roads', type: 'line', ...base, 'source-layer': 'roads', paint: { 'line-color': colour('line'), 'line-width': ['interpolate', ['linear'], ['zoom'], 8, 0.5, 15, 4] } },
      { id: 'buildings', type: 'fill', ...base, 'source-layer': 'buildings', minzoom: 14, paint: { 'fill-color': colour('bar') } },
    )
  }
  layers.push(
    { id: 'districts', type: 'fill', source: 'districts', filter: AREA, paint: { 'fill-color': colour('district'), 'fill-opacity': basemap ? 0.35 : 1 } },
    { id: 'borders', type: 'line', source: 'districts', filter: AREA, paint: { 'line-color': colour('border'), 'line-width': 1.2 } },
    {
      id: 'river', type: 'line', source: 'districts', filter: ['has', 'river'],
      layout: { 'line-cap': 'round', 'line-join': 'round' },
      paint: { 'line-color': colour('water'), 'line-width': ['interpolate', ['linear'], ['zoom'], 9, 3, 14, 14] },
    },
    {
      id: 'wind', type: 'symbol', source: 'wind',
      layout: {
        'icon-image': 'wind', 'icon-anchor': 'bottom', 'icon-rotate': ['get', 'to'], 'icon-rotation-alignment': 'map', 'icon-allow-overlap': true, 'icon-ignore-placement': true,
        'icon-size': ['interpolate', ['linear'], ['get', 'speed'], 0, 0.6, 12, 1.6],
      },
    },
    {
      id: 'calm', type: 'symbol', source: 'calm', filter: ['!', ['has', 'point_count']],
      layout: { 'icon-image': ['get', 'mark'], 'icon-allow-overlap': true, 'icon-ignore-placement': true },
      paint: { 'icon-opacity': ['case', ['==', ['get', 'state'], 'stale'], 0.5, 1] },
    },
    {
      id: 'clusters', type: 'symbol', source: 'calm', filter: ['has', 'point_count'],
      layout: { 'icon-image': ['concat', 'cluster-', ['get', 'point_count']], 'icon-allow-overlap': true, 'icon-ignore-placement': true },
    },
    {
      id: 'sensors', type: 'symbol', source: 'sensors',
      layout: { 'icon-image': ['get', 'mark'], 'icon-allow-overlap': true, 'icon-ignore-placement': true, 'symbol-sort-key': ['get', 'order'], 'icon-size': ['case', ['get', 'open'], 1.5, 1] },
      paint: { 'icon-opacity': ['case', ['==', ['get', 'state'], 'stale'], 0.5, 1] },
    },
  )
  return { version: 8, sources, layers }
}

type Paint = (context: CanvasRenderingContext2D) => void
const CIRCLE = 'M8 2.5a5.5 5.5 0 1 0 0 11A5.5 5.5 0 1 0 8 2.5z'

/** Paints in a 16 × 16 box with a margin; `size` is in pixels of the image. */
function painted(size: number, paint: Paint): ImageData {
  const canvas = document.createElement('canvas')
  canvas.width = canvas.height = size
  const context = canvas.getContext('2d')
  if (!context) return new ImageData(size, size)
  context.scale(size / 20, size / 20)
  context.translate(2, 2)
  paint(context)
  return context.getImageData(0, 0, size, size)
}

function outline(context: CanvasRenderingContext2D, path: Path2D, edge: string, fill: string): void {
  context.lineWidth = 3
  context.lineJoin = 'round'
  context.strokeStyle = edge
  context.stroke(path)
  context.fillStyle = fill
  context.fill(path)
}

/** A mark that is made when the map first asks for it: `grade-#00e400`, a good sensor in its grade's colour, or `cluster-7`, so many calm sensors. */
export function markFor(name: string, colour: (name: string) => string): ImageData | null {
  const [what, value = ''] = name.split('-')
  if (what === 'grade') return painted(32, (context) => outline(context, new Path2D(CIRCLE), colour('ground'), value))
  if (what !== 'cluster') return null
  return painted(60, (context) => {
    outline(context, new Path2D('M8 0a8 8 0 1 0 0 16A8 8 0 1 0 8 0z'), colour('good'), colour('panel'))
    context.fillStyle = colour('ink')
    context.font = `600 ${value.length > 2 ? 7 : 9.5}px ${getComputedStyle(document.body).fontFamily}`
    context.textAlign = 'center'
    context.textBaseline = 'middle'
    context.fillText(value, 8, 8.6)
  })
}

/** The marks of sensors, drawn twice as large as shown (pixelRatio 2). */
export function marks(colour: (name: string) => string): Map<string, ImageData> {
  const images = new Map<string, ImageData>()
  const draw = (name: string, size: number, paint: Paint) => images.set(name, painted(size, paint))
  const outlined = (context: CanvasRenderingContext2D, path: Path2D, name: string) => outline(context, path, colour('ground'), colour(name))
  const circle = new Path2D(CIRCLE)
  const stroked = (name: string, path: Path2D, inside: boolean) => (context: CanvasRenderingContext2D) => {
    context.lineWidth = 5.5
    context.strokeStyle = colour('ground')
    context.stroke(path)
    if (inside) {
      context.fillStyle = colour('ground')
      context.fill(path)
    }
    context.lineWidth = 2.5
    context.strokeStyle = colour(name)
    context.stroke(path)
  }
  draw('good', 32, (context) => outlined(context, circle, 'good'))
  draw('wind', 56, stroked('soft', new Path2D('M8 15V1.5M4.8 6 8 1.5 11.2 6'), false))
  draw('silent', 34, stroked('faded', circle, true))
  draw('suspect', 38, stroked('quality', new Path2D(QUALITY_SHAPES.suspect), true))
  draw('failed', 36, stroked('faded', new Path2D(QUALITY_SHAPES.failed), false))
  draw('maintenance', 40, (context) => outlined(context, new Path2D(QUALITY_SHAPES.maintenance), 'quality'))
  for (const severity of SEVERITIES) draw(`event-${severity}`, 48, (context) => outlined(context, new Path2D(SHAPES[severity]), severity))
  return images
}
