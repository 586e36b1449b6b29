import { type PathTemplate, parsePathTemplate } from "@taskmesh/runtime";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PathTree, variableText } from "./path-tree.js";

function template(text: string): PathTemplate {
  const parsed = parsePathTemplate(text);
  if (!parsed.ok) throw new Error(parsed.message);
  return parsed.template;
}

function treeOf(...texts: string[]): PathTree<string> {
  const tree = new PathTree<string>();
  for (const text of texts) tree.add("GET", template(text), text);
  return tree;
}

describe("path tree", () => {
  const texts = ["/v1/{a}/b", "/v1/a/{b}", "/v1/a/b:go", "/v1/{a=**}", "/v1/{a=**}:go", "/v1/{a}/{b}/c", "/v1/x%2Fy"];
  it.each([
    ["/v1/a/b", "/v1/a/{b}"],
    ["/v1/c/b", "/v1/{a}/b"],
    ["/v1/a/b:go", "/v1/a/b:go"],
    ["/v1/a/b%3Ago", "/v1/a/{b}"],
    ["/v1/a/b:stop", "/v1/a/{b}"],
    ["/v1/a/b/d:go", "/v1/{a=**}:go"],
    ["/v1/a/b/c", "/v1/{a}/{b}/c"],
    ["/v1/a/b/d", "/v1/{a=**}"],
    ["/v1/x%2fy", "/v1/x%2Fy"],
    ["/v1/x/y", "/v1/{a=**}"],
    ["/%761/a/%62", "/v1/a/{b}"],
    ["/v1", "/v1/{a=**}"],
    ["/v2/a", undefined],
    ["/", undefined],
  ])("leads %s to %s", (path, expected) => {
    expect(treeOf(...texts).find("GET", path)?.value).toBe(expected);
  });

  it("does not take an empty segment for one, and goes on to a template that takes the method", () => {
    const tree = treeOf("/v1/a/{b}");
    expect(tree.find("GET", "/v1/a/")).toBeUndefined();
    tree.add("POST", template("/v1/{a}/{b}"), "post");
    tree.add("*", template("/v1/{a}/any"), "any");
    expect(tree.find("POST", "/v1/a/x")?.value).toBe("post");
    expect(tree.find("PURGE", "/v1/a/any")?.value).toBe("any");
    expect(tree.methodsOf("/v1/a/any")).toEqual(["*", "GET", "POST"]);
  });

  it("says who has a place that is taken", () => {
    const tree = treeOf("/v1/{a}");
    expect(tree.add("GET", template("/v1/{other}"), "second")).toBe("/v1/{a}");
    expect(tree.find("GET", "/v1/x")?.value).toBe("/v1/{a}");
    expect(tree.add("PUT", template("/v1/{other}"), "put")).toBeUndefined();
  });

  it("finds the same whatever the order in which templates came", () => {
    fc.assert(
      fc.property(
        fc.shuffledSubarray(texts, { minLength: texts.length }),
        fc.array(fc.constantFrom("v1", "a", "b", "c", "b:go", "x%2Fy", ""), { maxLength: 5 }),
        (order, segments) => {
          const path = `/${segments.join("/")}`;
          expect(treeOf(...order).find("GET", path)).toEqual(treeOf(...texts).find("GET", path));
        },
      ),
    );
  });

  it("gives back what a client wrote into the path, whatever it is", () => {
    const one = template("/v1/{a}/x");
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", minLength: 1 }), (text) => {
        const found = treeOf(one.text).find("GET", `/v1/${encodeURIComponent(text)}/x`)!;
        expect(variableText(one.variables[0]!, one, found.segments)).toBe(text);
      }),
    );
  });
});
