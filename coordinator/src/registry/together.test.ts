import { describe, expect, it } from "vitest";
import { together } from "./together.js";

/** A round that waits to be let go, and what each round was given. */
function gated() {
  const rounds: string[][] = [];
  const gates: (() => void)[] = [];
  const round = async (items: readonly string[]): Promise<(string | Error)[]> => {
    rounds.push([...items]);
    await new Promise<void>((resolve) => gates.push(resolve));
    if (items.includes("bad") && items.length > 1) throw new Error("the round failed");
    return items.map((item) => (item === "bad" ? new Error("it is bad") : item.toUpperCase()));
  };
  const letGo = async (): Promise<void> => {
    while (gates.length === 0) await Promise.resolve();
    gates.shift()!();
  };
  return { rounds, round, letGo };
}

describe("work that is done together", () => {
  it("shares a round when it comes while another is under way, in order and within the bound", async () => {
    const { rounds, round, letGo } = gated();
    const ask = together({ round, max: 2 });
    const answers = ["a", "b", "c", "d"].map((item) => ask(item));
    for (let i = 0; i < 3; i++) await letGo();
    expect(await Promise.all(answers)).toEqual(["A", "B", "C", "D"]);
    expect(rounds).toEqual([["a"], ["b", "c"], ["d"]]);
  });

  it("of one key is done in different rounds", async () => {
    const { rounds, round, letGo } = gated();
    const ask = together({ round, key: (item: string) => item[0]! });
    const answers = ["x", "a1", "a2", "b1", "a3"].map((item) => ask(item));
    for (let i = 0; i < 4; i++) await letGo();
    await Promise.all(answers);
    expect(rounds).toEqual([["x"], ["a1", "b1"], ["a2"], ["a3"]]);
  });

  it("fails for the one that is to blame when its round fails", async () => {
    const { rounds, round, letGo } = gated();
    const ask = together({ round });
    const answers = Promise.allSettled(["x", "a", "bad", "b"].map((item) => ask(item)));
    for (let i = 0; i < 5; i++) await letGo();
    expect((await answers).map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected", "fulfilled"]);
    expect(rounds.slice(1)).toEqual([["a", "bad", "b"], ["a"], ["bad"], ["b"]]);
  });
});
