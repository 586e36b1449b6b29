import { describe, expect, it } from "vitest";
import { parsePathTemplate } from "./path-template.js";

const read = (text: string) => {
  const parsed = parsePathTemplate(text);
  if (!parsed.ok) throw new Error(parsed.message);
  return parsed.template;
};

describe("path templates", () => {
  it("takes literals, wildcards, variables with and without a pattern, and a verb", () => {
    const template = read("/v1/{name=shelves/*}/x%20y/{book.id}/**:read");
    expect(template.segments).toEqual([
      { kind: "literal", text: "v1" },
      { kind: "literal", text: "shelves" },
      { kind: "one" },
      { kind: "literal", text: "x y" },
      { kind: "one" },
      { kind: "rest" },
    ]);
    expect(template.variables).toEqual([
      { fieldPath: ["name"], from: 1, to: 3 },
      { fieldPath: ["book", "id"], from: 4, to: 5 },
    ]);
    expect(template.verb).toBe("read");
  });

  it("gives templates one shape that match the same paths, whatever their variables are called", () => {
    const shapes = ["/v1/{a}/b:c", "/v1/*/b:c", "/v1/{other=*}/%62:c"].map((text) => read(text).shape);
    expect(new Set(shapes).size).toBe(1);
    expect(read("/v1/{a=**}").shape).not.toBe(read("/v1/{a}").shape);
    expect(read("/v1/a").shape).not.toBe(read("/v1:a").shape);
  });

  it.each([
    ["v1/a", "does not begin with"],
    ["/", "an empty segment"],
    ["/v1//a", "an empty segment"],
    ["/v1/", "an empty segment"],
    ["/v1/{a", "is no variable"],
    ["/v1/a}", "is no segment"],
    ["/v1/{a}b", "is no variable"],
    ["/v1/{a={b}}", "is no variable"],
    ["/v1/{}", "is no path of a field"],
    ["/v1/{a..b}", "is no path of a field"],
    ["/v1/{a=}", "an empty segment"],
    ["/v1/{a}/{a}", "twice"],
    ["/v1/**/a", "must be the last"],
    ["/v1/{a=**}/b", "must be the last"],
    ["/v1/a b", "is no segment"],
    ["/v1/a?b", "is no segment"],
    ["/v1/a:b/c", "is no verb"],
    ["/v1/a:", "is no verb"],
    ["/v1/%ff", "not valid UTF-8"],
    [`/${"a".repeat(1_024)}`, "more than 1024 characters"],
  ])("refuses %s", (text, message) => {
    expect(parsePathTemplate(text)).toEqual({ ok: false, message: expect.stringContaining(message) });
  });
});
