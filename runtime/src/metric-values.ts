/** The numbers behind metrics: counters, gauges and histograms as plain fields, by label values. */

/** Series that one metric keeps: more means that a label has unbounded values, which would fill memory here and in Prometheus. */
export const seriesMax = 1_000;

const separator = "\u0000";

/** What all kinds have in common. */
export abstract class Metric<Value> {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly series = new Map<string, Value>();

  constructor(name: string, help: string, labels: readonly string[]) {
    this.name = name;
    this.help = help;
    this.labels = labels;
  }

  /** Key of the series with these label values; the one called "other" once there are too many. */
  protected keyOf(values: readonly string[]): string {
    const key = values.length <= 1 ? (values[0] ?? "") : values.join(separator);
    if (this.series.has(key) || this.series.size < seriesMax) return key;
    return this.labels.map(() => "other").join(separator);
  }

  /** Label names and values of a series. */
  attributesOf(key: string): Record<string, string> {
    if (this.labels.length === 0) return {};
    const values = key.split(separator);
    return Object.fromEntries(this.labels.map((label, index) => [label, values[index] ?? ""]));
  }
}

/** A number that only grows. */
export class Counter extends Metric<number> {
  readonly kind = "counter";

  /** Adds `amount` to the series of these label values. */
  add(amount: number, ...values: string[]): void {
    const key = this.keyOf(values);
    this.series.set(key, (this.series.get(key) ?? 0) + amount);
  }
}

/** A number that is set, or read when it is asked for. */
export class Gauge extends Metric<number> {
  readonly kind = "gauge";
  readonly #sources = new Set<() => void | Promise<void>>();

  set(value: number, ...values: string[]): void {
    this.series.set(this.keyOf(values), value);
  }

  /** Calls `read`, which is to `set`, whenever the numbers are asked for, and waits for it. Returns how to end that. */
  observe(read: () => void | Promise<void>): () => void {
    this.#sources.add(read);
    return () => void this.#sources.delete(read);
  }

  /** Refreshes what is read on demand. What can't be read keeps its last value. */
  async refresh(): Promise<void> {
    await Promise.allSettled([...this.#sources].map(async (read) => read()));
  }
}

interface Distribution {
  /** By bucket, the last for what is above all bounds. */
  buckets: number[];
  sum: number;
  count: number;
}

/** How often values fell into which bucket. */
export class Histogram extends Metric<Distribution> {
  readonly kind = "histogram";
  readonly bounds: readonly number[];

  /** `bounds`: upper bounds of the buckets, inclusive, rising. */
  constructor(name: string, help: string, labels: readonly string[], bounds: readonly number[]) {
    super(name, help, labels);
    this.bounds = bounds;
  }

  record(value: number, ...values: string[]): void {
    const key = this.keyOf(values);
    let found = this.series.get(key);
    if (!found) {
      found = { buckets: new Array<number>(this.bounds.length + 1).fill(0), sum: 0, count: 0 };
      this.series.set(key, found);
    }
    let bucket = 0;
    while (bucket < this.bounds.length && value > this.bounds[bucket]!) bucket += 1;
    found.buckets[bucket]! += 1;
    found.sum += value;
    found.count += 1;
  }
}

export type AnyMetric = Counter | Gauge | Histogram;
