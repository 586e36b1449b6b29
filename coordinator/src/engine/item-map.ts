/**
 * The open items of a fan-out, by index. A value: a change makes a new one that shares all but one page with the old, so a turn may keep the run
 * that came in as it was without copying a thousand items for each event.
 */
import type { StepState } from "./run-state.js";

const pageSize = 32;

type Page = readonly (StepState | undefined)[];

export class ItemMap {
  static readonly none = new ItemMap(new Map(), 0);

  private constructor(
    private readonly pages: ReadonlyMap<number, Page>,
    readonly size: number,
  ) {}

  get(item: number): StepState | undefined {
    return this.pages.get(Math.floor(item / pageSize))?.[item % pageSize];
  }

  has(item: number): boolean {
    return this.get(item) !== undefined;
  }

  /** With this state of the item; undefined: without the item. */
  with(item: number, state: StepState | undefined): ItemMap {
    const at = Math.floor(item / pageSize);
    const page = this.pages.get(at)?.slice() ?? new Array<StepState | undefined>(pageSize).fill(undefined);
    const before = page[item % pageSize];
    page[item % pageSize] = state;
    const pages = new Map(this.pages);
    if (state === undefined && page.every((one) => one === undefined)) pages.delete(at);
    else pages.set(at, page);
    return new ItemMap(pages, this.size + (state ? 1 : 0) - (before ? 1 : 0));
  }

  /** All of them; items are opened in order, and so are they here. */
  *entries(): Generator<[number, StepState]> {
    for (const [at, page] of this.pages) {
      for (let n = 0; n < pageSize; n++) {
        const state = page[n];
        if (state) yield [at * pageSize + n, state];
      }
    }
  }

  *values(): Generator<StepState> {
    for (const page of this.pages.values()) for (const state of page) if (state) yield state;
  }
}
