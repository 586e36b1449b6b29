import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { nearestName } from "./nearest-name.js";
import { formatPath, JSON_DEPTH_MAX, parseStrictJson } from "./strict-json.js";

describe("strict JSON", () => {
  it("reads everything that JSON.stringify writes, however it is spaced", () => {
    const json = fc.jsonValue({ maxDepth: 8 });
    fc.assert(
      fc.property(json, fc.constantFrom(0, 1, "\t"), (value, space) => {
        const text = JSON.stringify(value, null, space);
        // A lone surrogate is what the writer lets through and the reader does not.
        const isWellFormed = !/\\ud[89a-f]/.test(text);
        const result = parseStrictJson(text);
        expect(result.ok).toBe(isWellFormed);
        if (result.ok) expect(result.value).toEqual(JSON.parse(text));
        expect(parseStrictJson(Buffer.from(text)).ok).toBe(isWellFormed);
      }),
    );
  });

  it("never throws, whatever the text", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), (text) => void parseStrictJson(text)));
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void parseStrictJson(bytes)));
    const noise = fc.array(fc.constantFrom("{", "}", "[", "]", '"', "\\", ":", ",", "1", "a", "null", " "));
    fc.assert(fc.property(noise, (parts) => void parseStrictJson(parts.join(""))));
  });

  it("finds a key that occurs twice in one object, at any depth and in any spelling, and in no other case", () => {
    const twice = ['{"a":1,"a":2}', '[{"a":{"b":1,"c":[],"b":2}}]', '{"a":1,"\\u0061":2}', '{"\\"":1,"\\"":2}'];
    for (const text of twice) expect(parseStrictJson(text), text).toMatchObject({ ok: false });
    const once = ['{"a":{"a":{"a":1}}}', '[{"a":1},{"a":1}]', '{"a":"a","b":["a","a"]}', '{"a\\\\":1,"a":2}'];
    for (const text of once) expect(parseStrictJson(text), text).toMatchObject({ ok: true });
  });

  it("counts levels of objects and arrays alike", () => {
    const nested = (levels: number) => `${'{"a":['.repeat(levels / 2)}${"]}".repeat(levels / 2)}`;
    expect(parseStrictJson(nested(JSON_DEPTH_MAX)).ok).toBe(true);
    expect(parseStrictJson(nested(JSON_DEPTH_MAX + 2)).ok).toBe(false);
  });

  it("says where the integers are that a double can't hold", () => {
    const text =
      '{"a":[1,9007199254740993,{"b":-9007199254740995}],"c":9007199254740991,"d":1e300,"e":"9007199254740993"}';
    const result = parseStrictJson(text);
    expect(result.ok && result.lossyIntegers.map(formatPath)).toEqual(["a[1]", "a[2].b"]);
    const exact = parseStrictJson(
      "[9007199254740992, 9223372036854774784, -9223372036854775808, 18446744073709549568]",
    );
    expect(exact).toMatchObject({ ok: true, lossyIntegers: [] });
    const beyond = parseStrictJson(`[9223372036854775807, 1${"0".repeat(400)}]`);
    expect(beyond.ok && beyond.lossyIntegers.map(formatPath)).toEqual(["[0]", "[1]"]);
  });

  it("says where malformed text goes wrong, without quoting it", () => {
    const result = parseStrictJson('{\n  "password": "hunter2",\n  oops\n}');
    expect(result).toEqual({ ok: false, field: "", message: expect.stringContaining("malformed JSON") });
    expect(JSON.stringify(result)).not.toContain("hunter2");
  });
});

describe("nearest name", () => {
  it("finds what was meant, whatever the case and the separators", () => {
    const names = ["text", "pageSize", "accepted_at"];
    expect(["txt", "tetx", "page_size", "PAGESIZE", "acceptedAt"].map((name) => nearestName(name, names))).toEqual([
      "text",
      "text",
      "pageSize",
      "pageSize",
      "accepted_at",
    ]);
  });

  it("suggests nothing far-fetched", () => {
    expect(["", "x", "url", "completely_else"].map((name) => nearestName(name, ["text", "pageSize"]))).toEqual(
      Array(4).fill(undefined),
    );
    expect(nearestName("a".repeat(10_000), ["a".repeat(9_999)])).toBeUndefined();
  });
});
