import { init, type EChartsCoreOption } from 'echarts/core'
import type { Attachment } from 'svelte/attachments'

/** Draws a chart in an element, anew whenever what it shows changes, and as large as the element is. */
export const drawn =
  (option: () => EChartsCoreOption): Attachment<HTMLElement> =>
  (node) => {
    const chart = init(node)
    const watch = new ResizeObserver(() => chart.resize())
    watch.observe(node)
    $effect(() => chart.setOption(option(), { notMerge: true }))
    return () => {
      watch.disconnect()
      chart.dispose()
    }
  }
