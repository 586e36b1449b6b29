/**
 * Time and chance of a simulation. While a world is entered, the process's timers, clocks and `Math.random` are its own: code that waits
 * ten minutes waits for nothing, and everything happens in an order that the seed alone decides.
 *
 * W1. One task runs at a time, the earliest first, at equal times in order of their making; its promises settle before the next begins.
 * W2. Nothing of a world runs after it was left.
 */
import { Random } from "./random.js";

/** When every simulation begins. */
export const beginMs = 1_800_000_000_000;

interface Task {
  atMs: number;
  no: number;
  run: () => void;
  cancelled: boolean;
}

const real = {
  setTimeout: globalThis.setTimeout,
  setImmediate: globalThis.setImmediate,
  clearTimeout: globalThis.clearTimeout,
  clearImmediate: globalThis.clearImmediate,
  dateNow: Date.now,
  random: Math.random,
};

export class World {
  readonly random: Random;
  nowMs = beginMs;
  /** Tasks that ran. */
  tasks = 0;
  #queue: Task[] = [];
  #made = 0;
  #log: string[] | undefined;

  constructor(seed: number, options: { trace?: boolean } = {}) {
    this.random = new Random(seed);
    if (options.trace) this.#log = [];
  }

  /** Milliseconds since the world began. */
  get elapsedMs(): number {
    return this.nowMs - beginMs;
  }

  /** Runs it in so many milliseconds; answers how to call it off. */
  after(ms: number, run: () => void): Task {
    const task: Task = { atMs: this.nowMs + Math.max(0, ms || 0), no: this.#made++, run, cancelled: false };
    push(this.#queue, task);
    return task;
  }

  /** Resolves after so many milliseconds. */
  pause(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }

  /** Notes what happened, for people; costs nothing unless traced. */
  note(text: () => string): void {
    this.#log?.push(`${(this.elapsedMs / 1000).toFixed(3).padStart(9)}  ${text()}`);
  }

  get trace(): readonly string[] {
    return this.#log ?? [];
  }

  /** Lets the world go on until `done`, or for at most `limitMs` of its time; answers whether it was done. */
  async until(done: () => boolean, limitMs: number): Promise<boolean> {
    const endMs = this.nowMs + limitMs;
    while (!done()) {
      const task = pop(this.#queue);
      if (!task || task.atMs > endMs) {
        if (task) push(this.#queue, task);
        this.nowMs = endMs;
        return false;
      }
      if (task.cancelled) continue;
      this.nowMs = Math.max(this.nowMs, task.atMs);
      this.tasks += 1;
      task.run();
      await new Promise<void>((resolve) => real.setImmediate(resolve)); // W1
    }
    return true;
  }

  /** Runs `play` with this world's time and chance in place of the process's. */
  async enter<T>(play: () => Promise<T>): Promise<T> {
    const handle = (task: Task): unknown => ({ task, unref: () => handle(task), ref: () => handle(task) });
    const cancel = (timer: unknown): void => {
      const task = (timer as { task?: Task } | undefined)?.task;
      if (task) task.cancelled = true;
    };
    type Callback = (...args: unknown[]) => void;
    const timeout = (run: Callback, ms?: number, ...args: unknown[]) => handle(this.after(ms ?? 0, () => run(...args)));
    const immediate = (run: Callback, ...args: unknown[]) => handle(this.after(0, () => run(...args)));
    Object.assign(globalThis, { setTimeout: timeout, setImmediate: immediate, clearTimeout: cancel });
    Object.assign(globalThis, { clearImmediate: cancel });
    Object.defineProperty(performance, "now", { value: () => this.elapsedMs, configurable: true });
    Date.now = () => this.nowMs;
    const chance = new Random(this.random.int(0, 2 ** 31));
    Math.random = () => chance.next();
    try {
      return await play();
    } finally {
      this.#queue = []; // W2
      const { dateNow, random, ...timers } = real;
      Object.assign(globalThis, timers);
      Date.now = dateNow;
      Math.random = random;
      // What is below it is the runtime's own.
      delete (performance as { now?: unknown }).now;
    }
  }
}

const before = (a: Task, b: Task): boolean => a.atMs < b.atMs || (a.atMs === b.atMs && a.no < b.no);

/** A binary heap. */
function push(heap: Task[], task: Task): void {
  let at = heap.push(task) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!before(task, heap[parent]!)) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = task;
}

function pop(heap: Task[]): Task | undefined {
  const first = heap[0];
  const last = heap.pop();
  if (first === undefined || last === undefined || heap.length === 0) return first;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child += 1;
    if (!before(heap[child]!, last)) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = last;
  return first;
}
