import { runAction } from "@taskmesh/action-sdk/testing";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { createThreadPool } from "../bounded/thread-pool.js";
import { builtinDescriptors } from "../gen/descriptors.js";
import type { QueryResponse } from "../gen/taskmesh/json/v1/json.js";
import { jsonActions } from "./action.js";
import { queryJson } from "./query.js";

const threads = createThreadPool();
const impatient = createThreadPool({ timeoutMs: 2_000, heapMb: 128 });
afterAll(() => Promise.all([threads.close(), impatient.close()]));
const [query] = jsonActions(threads);
const ask = (document: unknown, expression: string, action = query!) => {
  const input =
    typeof document === "string"
      ? { $case: "text" as const, value: document }
      : { $case: "value" as const, value: document };
  return runAction(
    action,
    { document: input, expression },
    {
      descriptors: builtinDescriptors,
    },
  );
};
const answer = async (document: unknown, expression: string): Promise<QueryResponse> => {
  const { output, failure } = await ask(document, expression);
  expect(failure).toBeUndefined();
  return output as QueryResponse;
};

describe("Query", () => {
  const people = { people: [{ name: "Ada", age: 36 }, { name: "Bob", age: 25 }, { name: "Cyd" }] };

  it("answers with the value, as JSON and as text", async () => {
    expect(await answer(people, "people[?age > `30`].name")).toEqual({
      result: ["Ada"],
      json: '["Ada"]',
      text: '["Ada"]',
    });
    expect(await answer(JSON.stringify(people), "people[0].name")).toEqual({
      result: "Ada",
      json: '"Ada"',
      text: "Ada",
    });
    expect(await answer(people, "nobody.here")).toEqual({ result: null, json: "null", text: "" });
    expect(await answer(people, "{n: length(people), oldest: max_by(people[?age], &age).name}")).toMatchObject({
      result: { n: 3, oldest: "Ada" },
    });
    expect(await answer("\ufeff[1, 2.5, true, null]", "@")).toMatchObject({ json: "[1,2.5,true,null]" });
    expect(await answer(null, "@")).toMatchObject({ result: null });
    expect(await answer({ "": { "a.b": "ü😀" } }, '""."a.b"')).toMatchObject({ text: "ü😀" });
  });

  it.each([
    ["JSON_INVALID", "{nope", "@"],
    ["JSON_INVALID", "", "@"],
    ["QUERY_INVALID", "{}", "a["],
    ["QUERY_INVALID", "{}", "a b"],
    ["QUERY_FAILED", '{"a":"x"}', "abs(a)"],
    ["QUERY_FAILED", "{}", "nonsense(@)"],
    ["INPUT_INVALID", "{}", ""],
  ])("fails with %s: %s %s", async (reason, text, expression) => {
    const { failure } = await ask(text, expression);
    expect(failure).toMatchObject({ reason, retryable: false });
  });

  it("ends at a bound where an expression multiplies its document", async () => {
    const [bounded] = jsonActions(impatient);
    for (const expression of [
      `${"[@,@][]|".repeat(30)}@`,
      `${"[@,@]|".repeat(30)}@`,
      `${"[@,@,@,@][]|".repeat(12)}length(@)`,
    ]) {
      const { failure } = await ask("[1,2,3,4]", expression, bounded!);
      expect(failure?.retryable, expression).toBe(false);
      expect(["LIMIT_EXCEEDED", "OUTPUT_TOO_LARGE"]).toContain(failure?.reason);
    }
    const { output } = await ask("[1]", "[0]", bounded!);
    expect(output).toMatchObject({ result: 1 });
  });

  it("refuses expressions and documents that nest too deep", async () => {
    const deepDocument = await ask(`${"[".repeat(50_000)}${"]".repeat(50_000)}`, "@");
    expect(["OUTPUT_TOO_LARGE", "LIMIT_EXCEEDED"]).toContain(deepDocument.failure?.reason);
    const deepExpression = await ask("{}", `${"(".repeat(4_000)}a${")".repeat(4_000)}`);
    expect(deepExpression.failure ?? deepExpression.output).toBeDefined();
    const justDeepEnough = await answer(`${"[".repeat(30)}${"]".repeat(30)}`, "@");
    expect(justDeepEnough.json).toHaveLength(60);
  });

  it("gives any document back as it is", () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
        const text = JSON.stringify(value);
        const { result, json } = queryJson({ text, expression: "@" });
        expect(json).toBe(JSON.stringify(JSON.parse(text)));
        expect(result).toEqual(JSON.parse(json));
      }),
    );
  });
});
