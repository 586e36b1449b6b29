/**
 * List concatenation for the engine, in place of its own.
 *
 * map() and filter() add their results one by one: `result + [item]`. The engine answers each `+` with a list that refers to both
 * halves, which makes reading the result quadratic and, from some thousand items on, overflows the stack. Here a list that grows at
 * its end shares one array with the lists that it grew from; each sees only its own length.
 */
import { type CelList, CelScalar, type CelValue, celFunc, celListConcat, isCelList, listType } from "@bufbuild/cel";

/** How the engine recognises lists; it has no public way to make one of another kind. appended-list.test.ts holds it to this. */
const listMark = Symbol.for("@bufbuild/cel/list");

/** Longer right sides are not copied but referred to, as the engine does: those come from the text of an expression, not from a loop. */
const copiedMax = 16;

class AppendedList {
  readonly [listMark] = {};

  constructor(
    private readonly items: CelValue[],
    readonly size: number,
  ) {}

  /** This list and more at its end. */
  append(more: CelList): AppendedList {
    // Only the longest list over the array may grow it: the others would see their successor overwritten.
    const items = this.items.length === this.size ? this.items : this.items.slice(0, this.size);
    for (const item of more) items.push(item);
    return new AppendedList(items, items.length);
  }

  get(index: number): CelValue | undefined {
    return index >= 0 && index < this.size ? this.items[index] : undefined;
  }

  *values(): IterableIterator<CelValue> {
    for (let i = 0; i < this.size; i++) yield this.items[i]!;
  }

  [Symbol.iterator](): IterableIterator<CelValue> {
    return this.values();
  }
}

const list = listType(CelScalar.DYN);

/** `+` of two lists, for celEnv's `funcs`. */
export const appendLists = celFunc("_+_", [list, list], list, (left, right) => concat(left, right));

function concat(left: CelList, right: CelList): CelList {
  if (right.size > copiedMax) return celListConcat(left, right);
  const base = left instanceof AppendedList ? left : new AppendedList([...left], left.size);
  const result = base.append(right) as unknown as CelList;
  return isCelList(result) ? result : celListConcat(left, right);
}
