/**
 * The numbers behind metrics: counters, gauges and histograms as plain fields, by label values.
 *
 * A series is found once (`at`) and then counted by an addition to its field: whoever counts for each step keeps what `at` answered.
 *
 * V1. A label either lists its values or takes names that users give. Of the latter it keeps at most `valuesMax` different ones.
 * V2. A metric keeps at most `seriesMax` series of such names.
 * V3. What comes beyond either bound is counted under "other", so sums stay true; labels that list their values keep them even then.
 */

/** Different names that one label of one metric keeps. */
export const valuesMax = 250;
/** Series that one metric keeps: more means that a label has unbounded values, which would fill memory here and in Prometheus. */
export const seriesMax = 2_000;

const separator = "\u0000";
const other = "other";

/** A label of metrics. */
export interface Label {
  readonly name: string;
  /** What its values say. */
  readonly doc: string;
  /** All values that there are; absent: names that users give. */
  readonly values?: readonly string[];
}

/** What all kinds have in common. */
export abstract class Metric<Series> {
  readonly name: string;
  readonly help: string;
  readonly labels: readonly Label[];
  readonly series = new Map<string, Series>();
  readonly #seen: ReadonlyMap<Label, Set<string>>;

  constructor(name: string, help: string, labels: readonly Label[]) {
    this.name = name;
    this.help = help;
    this.labels = labels;
    this.#seen = new Map(labels.map((label) => [label, new Set(label.values)]));
  }

  protected abstract make(): Series;

  /** The series of these label values, given in the order of the labels. It stays the same object for ever: keep it where it is hot. */
  at(...values: string[]): Series {
    const key = this.#keyOf(values);
    const found = this.series.get(key);
    if (found) return found;
    const made = this.make();
    this.series.set(key, made);
    return made;
  }

  /** Label names and values of a series. */
  attributesOf(key: string): Record<string, string> {
    if (this.labels.length === 0) return {};
    const values = key.split(separator);
    return Object.fromEntries(this.labels.map(({ name }, index) => [name, values[index] ?? ""]));
  }

  #keyOf(values: readonly string[]): string {
    const asked = values.length <= 1 ? (values[0] ?? "") : values.join(separator);
    if (this.series.has(asked)) return asked;
    const bounded = this.labels.map((label, index) => this.#bounded(label, values[index] ?? ""));
    const key = bounded.join(separator);
    if (this.series.has(key) || this.series.size < seriesMax) return key;
    return this.labels.map((label, index) => (label.values ? bounded[index] : other)).join(separator);
  }

  #bounded(label: Label, value: string): string {
    const seen = this.#seen.get(label)!;
    if (seen.has(value)) return value;
    if (label.values || seen.size >= valuesMax) return other;
    seen.add(value);
    return value;
  }
}

/** One series of a counter or gauge. */
export class Cell {
  value = 0;

  /** Adds, by default one. */
  add(amount = 1): void {
    this.value += amount;
  }
}

function combinations([first, ...rest]: readonly Label[]): string[][] {
  if (!first) return [[]];
  const tails = combinations(rest);
  return (first.values ?? []).flatMap((value) => tails.map((tail) => [value, ...tail]));
}

/** A number that only grows. */
export class Counter extends Metric<Cell> {
  readonly kind = "counter";

  constructor(name: string, help: string, labels: readonly Label[]) {
    super(name, help, labels);
    // One that never counted is 0, not absent: rates need a beginning.
    if (labels.every(({ values }) => values)) for (const values of combinations(labels)) this.at(...values);
  }

  protected make(): Cell {
    return new Cell();
  }

  /** Adds `amount` to the series of these label values. */
  add(amount: number, ...values: string[]): void {
    this.at(...values).value += amount;
  }

  /** Says what somebody else has counted. */
  set(total: number, ...values: string[]): void {
    this.at(...values).value = total;
  }
}

/** A number that is set, or read when it is asked for. */
export class Gauge extends Metric<Cell> {
  readonly kind = "gauge";
  readonly #sources = new Set<() => void | Promise<void>>();

  protected make(): Cell {
    return new Cell();
  }

  set(value: number, ...values: string[]): void {
    this.at(...values).value = value;
  }

  /** Sets these series and forgets all others: what is not there any more shows nothing. */
  replace(rows: readonly { value: number; labels: readonly string[] }[]): void {
    this.series.clear();
    for (const { value, labels } of rows) this.at(...labels).value += value;
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

/** One series of a histogram. */
export class Distribution {
  /** By bucket, the last for what is above all bounds. */
  readonly buckets: number[];
  sum = 0;
  count = 0;
  readonly #bounds: readonly number[];

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.buckets = new Array<number>(bounds.length + 1).fill(0);
  }

  record(value: number): void {
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket += 1;
    this.buckets[bucket]! += 1;
    this.sum += value;
    this.count += 1;
  }
}

/** How often values fell into which bucket. */
export class Histogram extends Metric<Distribution> {
  readonly kind = "histogram";
  readonly bounds: readonly number[];

  /** `bounds`: upper bounds of the buckets, inclusive, rising. */
  constructor(name: string, help: string, labels: readonly Label[], bounds: readonly number[]) {
    super(name, help, labels);
    this.bounds = bounds;
  }

  protected make(): Distribution {
    return new Distribution(this.bounds);
  }

  record(value: number, ...values: string[]): void {
    this.at(...values).record(value);
  }
}

export type AnyMetric = Counter | Gauge | Histogram;
