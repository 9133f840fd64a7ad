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
      id: 'sensors', type: 'symbol', source: 'sensors',
      layout: { 'icon-image': ['get', 'mark'], 'icon-allow-overlap': true, 'icon-ignore-placement': true, 'symbol-sort-key': ['get', 'order'], 'icon-size': ['case', ['get', 'open'], 1.5, 1] },
      paint: { 'icon-opacity': ['case', ['==', ['get', 'state'], 'stale'], 0.5, 1] },
    },
  )
  return { version: 8, sources, layers }
}

/** The marks of sensors, drawn twice as large as shown (pixelRatio 2). */
export function marks(colour: (name: string) => string): Map<string, ImageData> {
  const images = new Map<string, ImageData>()
  const draw = (name: string, size: number, paint: (context: CanvasRenderingContext2D) => void) => {
    const canvas = document.createElement('canvas')
    canvas.width = canvas.height = size
    const context = canvas.getContext('2d')
    if (!context) return
    context.scale(size / 20, size / 20)
    context.translate(2, 2)
    paint(context)
    images.set(name, context.getImageData(0, 0, size, size))
  }
  const outlined = (context: CanvasRenderingContext2D, path: Path2D, name: string) => {
    context.lineWidth = 3
    context.lineJoin = 'round'
    context.strokeStyle = colour('ground')
    context.stroke(path)
    context.fillStyle = colour(name)
    context.fill(path)
  }
  const circle = new Path2D('M8 2.5a5.5 5.5 0 1 0 0 11A5.5 5.5 0 1 0 8 2.5z')
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
  draw('silent', 34, stroked('faded', circle, true))
  draw('suspect', 38, stroked('quality', new Path2D(QUALITY_SHAPES.suspect), true))
  draw('failed', 36, stroked('faded', new Path2D(QUALITY_SHAPES.failed), false))
  draw('maintenance', 40, (context) => outlined(context, new Path2D(QUALITY_SHAPES.maintenance), 'quality'))
  for (const severity of SEVERITIES) draw(`event-${severity}`, 48, (context) => outlined(context, new Path2D(SHAPES[severity]), severity))
  return images
}
