import { describe, expect, it } from "vitest";
import { type CelInput, isCelError, isCelList, planExpression } from "./engine-values.js";

const items = (expression: string, variables: Record<string, CelInput> = {}): unknown[] => {
  const result = planExpression(expression)(variables);
  if (isCelError(result) || !isCelList(result)) throw new Error(String(result));
  return [...result];
};

describe("concatenated lists", () => {
  it("hold both sides, empty ones too", () => {
    expect(items("[1] + [2, 3]")).toEqual([1n, 2n, 3n]);
    expect(items("[] + [1]")).toEqual([1n]);
    expect(items("[1] + []")).toEqual([1n]);
    expect(items("[] + []")).toEqual([]);
  });

  it("do not see what is appended to another list that grew from the same one", () => {
    const text = "[l + [1]].map(a, [a + [2], a + [3], a])[0]";
    const lists = items(text, { l: ["x"] }).map((list) => [...(list as Iterable<unknown>)]);
    expect(lists).toEqual([
      ["x", 1n, 2n],
      ["x", 1n, 3n],
      ["x", 1n],
    ]);
  });

  it("have sizes, indexes and members like other lists", () => {
    expect(items("[size(l + [1]), (l + [7])[1], (l + [7]).exists(i, i == 7) ? 1 : 0]", { l: [5n] })).toEqual([
      2n,
      7n,
      1n,
    ]);
    expect(isCelError(planExpression("(l + [1])[5]")({ l: [5n] }))).toBe(true);
    expect(planExpression("l + [1] == [5, 1] && [5, 1] == l + [1] && 1 in l + [1]")({ l: [5n] })).toBe(true);
  });

  it("make map() and filter() work over long lists", () => {
    const long = Array.from({ length: 50_000 }, (_, n) => BigInt(n));
    expect(items("l.map(n, n + 1)", { l: long })).toHaveLength(50_000);
    expect(items("l.filter(n, n % 2 == 0)", { l: long }).at(-1)).toBe(49_998n);
    expect(items("l.map(n, n > 5, n * 2) + l", { l: long })).toHaveLength(99_994);
  });
});
