/** From plain numbers to Prometheus text: the OpenTelemetry data model and its Prometheus serializer. Loaded on demand. */
import { monitorEventLoopDelay } from "node:perf_hooks";
import { type HrTime, ValueType } from "@opentelemetry/api";
import { PrometheusSerializer } from "@opentelemetry/exporter-prometheus";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { AggregationTemporality, type DataPoint, DataPointType, type MetricData } from "@opentelemetry/sdk-metrics";
import { sleep } from "./backoff.js";
import { metrics } from "./metric-table.js";
import type { AnyMetric, Histogram } from "./metric-values.js";
import type { MetricsExport } from "./metrics.js";

/** Ten times a second is enough to see a blocked loop, and few enough wake-ups to cost nothing while idle. */
const loopResolutionMs = 100;
/** Prometheus gives a scrape 10 s. */
const refreshMsMax = 3_000;

/** Serves the metrics that `shown` names when it is asked. */
export function createExport(shown: () => Iterable<AnyMetric>): MetricsExport {
  const loop = monitorEventLoopDelay({ resolution: loopResolutionMs });
  loop.enable();
  const startTime = hrTime();
  const serializer = new PrometheusSerializer("", false, undefined, true, true);

  return {
    contentType: "text/plain; version=0.0.4; charset=utf-8",
    async render() {
      const all = [...shown()];
      readProcess(loop);
      await refresh(all);
      const endTime = hrTime();
      const data = all.map((metric) => toMetricData(metric, startTime, endTime));
      // A metric without a series has nothing to say yet.
      const present = data.filter(({ dataPoints }) => dataPoints.length > 0);
      return serializer.serialize({
        resource: resourceFromAttributes({}),
        scopeMetrics: [{ scope: { name: "taskmesh" }, metrics: present }],
      });
    },
    async stop() {
      loop.disable();
    },
  };
}

/** Waits for what is read on demand, but not for ever: a scrape during an outage of the database still tells the rest. */
async function refresh(metrics: readonly AnyMetric[]): Promise<void> {
  const done = new AbortController();
  const reads = metrics.flatMap((metric) => (metric.kind === "gauge" ? metric.refresh() : []));
  await Promise.race([Promise.all(reads), sleep(refreshMsMax, done.signal)]);
  done.abort();
}

function readProcess(loop: ReturnType<typeof monitorEventLoopDelay>): void {
  // The histogram holds whole intervals: what is above the resolution is delay.
  const late = (nanos: number): number => Math.max(0, nanos / 1e9 - loopResolutionMs / 1e3) || 0;
  metrics.loopDelayP50.set(late(loop.percentile(50)));
  metrics.loopDelayP99.set(late(loop.percentile(99)));
  metrics.loopDelayMax.set(late(loop.max));
  loop.reset();
  const { rss, heapUsed } = process.memoryUsage();
  metrics.memory.set(rss);
  metrics.heap.set(heapUsed);
  const { user, system } = process.cpuUsage();
  metrics.cpu.set(user / 1e6, "user");
  metrics.cpu.set(system / 1e6, "system");
  metrics.uptime.set(process.uptime());
}

function toMetricData(metric: AnyMetric, startTime: HrTime, endTime: HrTime): MetricData {
  const base = {
    descriptor: { name: metric.name, description: metric.help, unit: "", valueType: ValueType.DOUBLE },
    aggregationTemporality: AggregationTemporality.CUMULATIVE,
  };
  const point = <V>(key: string, value: V): DataPoint<V> => {
    return { startTime, endTime, attributes: metric.attributesOf(key), value };
  };
  switch (metric.kind) {
    case "counter": {
      const dataPoints = [...metric.series].map(([key, { value }]) => point(key, value));
      return { ...base, dataPointType: DataPointType.SUM, isMonotonic: true, dataPoints };
    }
    case "gauge": {
      const dataPoints = [...metric.series].map(([key, { value }]) => point(key, value));
      return { ...base, dataPointType: DataPointType.GAUGE, dataPoints };
    }
    case "histogram":
      return { ...base, dataPointType: DataPointType.HISTOGRAM, dataPoints: histogramPoints(metric, point) };
  }
}

type HistogramPoints = Extract<MetricData, { dataPointType: DataPointType.HISTOGRAM }>["dataPoints"];

function histogramPoints(metric: Histogram, point: <V>(key: string, value: V) => DataPoint<V>): HistogramPoints {
  return [...metric.series].map(([key, { buckets, sum, count }]) =>
    point(key, { buckets: { boundaries: [...metric.bounds], counts: [...buckets] }, sum, count }),
  );
}

function hrTime(): HrTime {
  const ms = Date.now();
  return [Math.floor(ms / 1000), (ms % 1000) * 1e6];
}
