import { runAction } from "@taskmesh/action-sdk/testing";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { createThreadPool } from "../bounded/thread-pool.js";
import { builtinDescriptors } from "../gen/descriptors.js";
import {
  LetterCase,
  NormalizeRequest,
  RegexApplyRequest,
  RegexMode,
  RenderRequest,
  UnicodeForm,
} from "../gen/taskmesh/text/v1/text.js";
import { textActions } from "./action.js";
import { normalizeText } from "./normalize.js";
import { applyRegex } from "./regex.js";
import { renderTemplate } from "./render.js";

const threads = createThreadPool();
const impatient = createThreadPool({ timeoutMs: 1_000 });
afterAll(() => Promise.all([threads.close(), impatient.close()]));
const [regexApply, normalize, render] = textActions(threads);
const options = { descriptors: builtinDescriptors };

const regex = (input: Partial<RegexApplyRequest>) => applyRegex(RegexApplyRequest.fromPartial(input));
const find = (pattern: string, text: string, flags = "") => regex({ pattern, text, flags });
const replace = (pattern: string, text: string, replacement: string, limit = 0) =>
  regex({ pattern, text, replacement, limit, mode: RegexMode.REGEX_MODE_REPLACE });
const split = (pattern: string, text: string, limit = 0) =>
  regex({ pattern, text, limit, mode: RegexMode.REGEX_MODE_SPLIT }).parts;
/** A group in a replacement, written with braces. */
const braced = (name: string) => ["$", "{", name, "}"].join("");
const refusal = (reason: string) => expect.objectContaining({ reason });

describe("RegexApply", () => {
  it("runs as an action", async () => {
    const input = RegexApplyRequest.fromPartial({ text: "12 apples, 3 pears", pattern: "(?P<n>\\d+) (\\w+)" });
    const { output } = await runAction(regexApply!, input, options);
    expect(output).toEqual({
      text: "12 apples",
      matched: true,
      count: 2,
      parts: [],
      matches: [
        { text: "12 apples", start: 0, end: 9, groups: ["12", "apples"], named: { n: "12" } },
        { text: "3 pears", start: 11, end: 18, groups: ["3", "pears"], named: { n: "3" } },
      ],
    });
  });

  it("finds with flags, without matches, with groups that took no part, and beyond the basic plane", () => {
    expect(find("X", "axb")).toEqual({ text: "", matched: false, matches: [], parts: [], count: 0 });
    expect(find("X", "axb", "i").text).toBe("x");
    expect(find("^b$", "a\nb\nc", "m").count).toBe(1);
    expect([find("a.b", "a\nb").count, find("a.b", "a\nb", "s").count]).toEqual([0, 1]);
    expect(find("(a)|(?P<second>b)", "b").matches[0]).toMatchObject({ groups: ["", "b"], named: { second: "b" } });
    expect(find("(a)|(?P<second>b)", "a").matches[0]?.named).toEqual({});
    expect(find(".", "😀x").matches).toMatchObject([
      { text: "😀", start: 0, end: 2 },
      { text: "x", start: 2 },
    ]);
    expect(find("", "ab").count).toBe(3);
    expect(regex({ pattern: "a", text: "aaaa", limit: 2 }).count).toBe(2);
  });

  it("replaces with groups by number and name", () => {
    expect(replace("(\\w+)@(?P<host>\\w+)", "me@here, you@there", `${braced("host")}:$1`).text).toBe(
      "here:me, there:you",
    );
    expect(replace("a", "banana", "[$0]").text).toBe("b[a]n[a]n[a]");
    expect(replace("a", "banana", "$$", 2).text).toBe("b$n$na");
    expect(replace("", "ab", "-").text).toBe("-a-b-");
    expect(replace("x", "abc", "y")).toMatchObject({ text: "abc", matched: false, count: 0 });
    expect(replace("b", "abc", "$ {1}").text).toBe("a$ {1}c");
    for (const wrong of ["$1", braced("1"), braced("name"), braced("")]) {
      expect(() => replace("b", "abc", wrong)).toThrow(refusal("REPLACEMENT_INVALID"));
    }
  });

  it("splits", () => {
    expect(split("\\s*[,;]\\s*", "a , b;c")).toEqual(["a", "b", "c"]);
    expect(split(",", ",a,")).toEqual(["", "a", ""]);
    expect(split("", "abc")).toEqual(["a", "b", "c"]);
    expect(split(",", "a,b,c", 1)).toEqual(["a", "b,c"]);
    expect(split("x", "")).toEqual([""]);
  });

  it.each(["(", "a{2000}", "(?=a)", "(a)\\1", "[z-a]", "*", "\\", "(?P<n>a)(?P<n>b)", "(((a{100}){100}){100})"])(
    "calls %j invalid",
    (pattern) => {
      expect(() => find(pattern, "a")).toThrow(refusal("REGEX_INVALID"));
    },
  );

  it.each([
    ["(a+)+$", `${"a".repeat(50_000)}!`],
    ["^(([a-z])+.)+[A-Z]([a-z])+$", "a".repeat(20_000)],
    ["(a|a)*b", "a".repeat(50_000)],
    ["(.*)*x", "y".repeat(20_000)],
    ["(x+x+)+y", "x".repeat(20_000)],
    ["(a?){30}a{30}", "a".repeat(30)],
  ])("answers %s, which a backtracking engine never does", (pattern, text) => {
    expect(find(`${pattern}`, text).count).toBeGreaterThanOrEqual(0);
  });

  it("gives up on what is too much work", async () => {
    const [slow] = textActions(impatient);
    // Each of the matches looks for a c up to the end of the text.
    const input = { text: "ab".repeat(500_000), pattern: "a[ab]*c|a", limit: 100_000 };
    const { failure } = await runAction(slow!, RegexApplyRequest.fromPartial(input));
    expect(failure).toMatchObject({ reason: "LIMIT_EXCEEDED", retryable: false });
  });

  it("agrees with the language's own engine on simple patterns", () => {
    const pattern = fc.constantFrom("a", "[ab]", "a+", "b*", "(a|b)c", "a?b", "^a", "c$", "[^a]", "\\w\\s");
    fc.assert(
      fc.property(pattern, fc.array(fc.constantFrom("a", "b", "c", " ", "ü", "😀")), (source, chars) => {
        const text = chars.join("");
        const expected = [...text.matchAll(new RegExp(source, "gu"))].map((match) => match[0]);
        expect(find(source, text).matches.map((match) => match.text)).toEqual(expected);
        expect(replace(source, text, "<$0>").text).toBe(text.replace(new RegExp(source, "gu"), "<$&>"));
      }),
    );
  });
});

describe("Normalize", () => {
  const norm = (text: string, input: Partial<NormalizeRequest> = {}) =>
    normalizeText(NormalizeRequest.fromPartial({ text, ...input }));

  it("trims, collapses and composes by default", async () => {
    const { output } = await runAction(
      normalize!,
      NormalizeRequest.fromPartial({ text: " a\u0301 \n\t b\u00a0\u2003c " }),
      options,
    );
    expect(output).toEqual({ text: "á b c" });
  });

  it("does each thing when asked to", () => {
    const none = { trim: false, collapseWhitespace: false, stripControl: false, form: UnicodeForm.UNICODE_FORM_NONE };
    expect(norm(" a\u0301\u0000  ", none)).toBe(" a\u0301\u0000  ");
    expect(norm("ﬁ Ａ ²", { form: UnicodeForm.UNICODE_FORM_NFKC })).toBe("fi A 2");
    expect(norm("Crème Brûlée Ångström", { stripDiacritics: true })).toBe("Creme Brulee Angstrom");
    expect(norm("STRASSE İ", { letterCase: LetterCase.LETTER_CASE_LOWER })).toBe("strasse i̇");
    expect(norm("straße", { letterCase: LetterCase.LETTER_CASE_UPPER })).toBe("STRASSE");
    expect(norm("a\u200bb\u0007c\ufeffd\u202ee")).toBe("abcde");
    expect(norm("👨\u200d👩\u200d👧")).toBe("👨\u200d👩\u200d👧");
    expect(norm("a\r\nb", { collapseWhitespace: false })).toBe("a\r\nb");
    expect(norm("")).toBe("");
  });

  it("changes nothing the second time", () => {
    const form = fc.constantFrom(UnicodeForm.UNICODE_FORM_NFC, UnicodeForm.UNICODE_FORM_NFKC);
    const letterCase = fc.constantFrom(0, LetterCase.LETTER_CASE_LOWER);
    fc.assert(
      fc.property(fc.string({ unit: "grapheme" }), form, letterCase, fc.boolean(), (text, asForm, asCase, strip) => {
        const input = { form: asForm, letterCase: asCase, stripDiacritics: strip };
        const once = norm(text, input);
        expect(norm(once, input)).toBe(once);
      }),
      { numRuns: 2_000 },
    );
  });
});

describe("Render", () => {
  const task = { strict: false, escapeHtml: false };
  const rendered = (template: string, scope: Record<string, unknown> = {}, more: Partial<typeof task> = {}) =>
    renderTemplate({ template, scope, ...task, ...more });

  it("fills in values, without a thread where nothing can multiply", async () => {
    const input = { template: "{{url}}: {{words}}", values: { url: "http://h/?a={b}", words: "3" } };
    const closed = textActions({
      run: () => Promise.reject(new Error("no thread is needed")),
      close: async () => undefined,
    });
    const { output } = await runAction(closed[2]!, RenderRequest.fromPartial(input), options);
    expect(output).toEqual({ text: "http://h/?a={b}: 3" });
  });

  it("prefers values to data, and renders both", async () => {
    const data = { user: { name: "Ada", tags: ["x", "y"] }, a: "data" };
    const template = "{{ a }} {{ user.name | upcase }}{% for tag in user.tags %} #{{ tag }}{% endfor %} {{ missing }}.";
    const { output } = await runAction(
      render!,
      RenderRequest.fromPartial({ template, data, values: { a: "value" } }),
      options,
    );
    expect(output).toEqual({ text: "value ADA #x #y ." });
  });

  it("escapes HTML and refuses missing variables when asked to", () => {
    expect(rendered("{{ x }} {{ x | raw }}", { x: "<b>" }, { escapeHtml: true })).toBe("&lt;b&gt; <b>");
    expect(rendered("{{ x }}", { x: "<b>" })).toBe("<b>");
    expect(() => rendered("{{ missing }}", {}, { strict: true })).toThrow(refusal("RENDER_FAILED"));
    expect(rendered("{{ x | default: 'none' }}")).toBe("none");
  });

  it.each(["{{ a", "{% if a %}", "{% nonsense %}", "{% endif %}"])("calls the template %j invalid", (template) => {
    expect(() => rendered(template)).toThrow(refusal("TEMPLATE_INVALID"));
  });

  it("names the place of a mistake", () => {
    expect(() => rendered("one\n  {{ a | nonsense }}")).toThrow(/nonsense.*line:2/s);
  });

  it.each([
    "{% include '/etc/passwd' %}",
    "{% render 'package.json' %}",
    "{% layout '../package.json' %}",
    "{% include file %}",
  ])("reads no file: %s", (template) => {
    expect(() => rendered(template, { file: "/etc/passwd" })).toThrow(refusal("RENDER_FAILED"));
  });

  it("reaches no prototype", () => {
    for (const path of [
      "a.constructor",
      "a.__proto__",
      "a.toString",
      "list.constructor.name",
      "constructor",
      "__proto__.x",
    ]) {
      expect(rendered(`[{{ ${path} }}]`, { a: { b: 1 }, list: [1] })).toBe("[]");
    }
  });

  it.each([
    ["{% for i in (1..100000000) %}{{ i }}{% endfor %}", {}],
    ["{% for i in (1..100000) %}{% for j in (1..100000) %}x{% endfor %}{% endfor %}", {}],
    [`{% assign x = "xxxxxxxxxx" %}${"{% assign x = x | append: x %}".repeat(40)}{{ x }}`, {}],
    [`{{ a ${"| replace: 'a', a ".repeat(12)}}}`, { a: "a".repeat(100) }],
    [
      "{% assign s = a | split: '' %}{% for i in s %}{% for j in s %}{{ a }}{% endfor %}{% endfor %}",
      { a: "a".repeat(5_000) },
    ],
  ])("ends %s at a bound", async (template, values) => {
    const slow = textActions(impatient)[2]!;
    const { failure } = await runAction(slow, RenderRequest.fromPartial({ template, values }));
    expect(failure?.retryable).toBe(false);
    expect(["LIMIT_EXCEEDED", "OUTPUT_TOO_LARGE"]).toContain(failure?.reason);
  });
});
