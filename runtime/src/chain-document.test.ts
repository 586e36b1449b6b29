import { ChainProblem, ChainSpec, OnUnhandled } from "@taskmesh/proto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  chainDocumentBytesMax,
  describeChainProblem,
  locateChainProblem,
  parseChainDocument,
} from "./chain-document.js";
import { formatChainDocument, formatDuration, parseDuration } from "./chain-format.js";

const example = `contract:
  name: acme.pages.v1.Pages/Check
  input: { url: string }
  output: { words: int32, report: string }
run_timeout: 600s
steps:
  - id: fetch
    call: taskmesh.http.v1.HttpActions/Request
    input: { method: "'GET'", url: input.url }
    retry: { exponential: { initial: 1s, cap: 30s }, max_attempts: 5 }
    start_to_close: 20s
  - id: pick
    call: taskmesh.html.v1.HtmlActions/Select
    input: { html: steps.fetch.output.text, css: "'body'" }
  - id: score
    call: acme.pages.v1.PageActions/Score
    input: { text: steps.pick.output.txt }
  - id: report
    when: steps.score.output.words > 0
    call: taskmesh.text.v1.TextActions/Render
    input: { template: "'{{url}}: {{words}}'", values: "{'url': input.url, 'words': string(steps.score.output.words)}" }
output:
  words: steps.score.output.words
  report: "has(steps.report.output) ? steps.report.output.text : ''"
`;

const messages = (text: string) =>
  parseChainDocument(text).problems.map(
    ({ line, column, message, suggestion }) =>
      `${line}:${column} ${message}${suggestion === "" ? "" : ` (${suggestion})`}`,
  );

describe("chain document", () => {
  it("reads the YAML that people write", () => {
    const { spec, json, problems } = parseChainDocument(example);
    expect(problems).toEqual([]);
    expect(spec?.contract).toEqual({
      name: "acme.pages.v1.Pages/Check",
      input: { url: "string" },
      output: { words: "int32", report: "string" },
    });
    expect(spec?.runTimeout).toEqual({ seconds: 600n, nanos: 0 });
    expect(spec?.steps.map((step) => step.id)).toEqual(["fetch", "pick", "score", "report"]);
    expect(spec?.steps[0]?.input["method"]).toEqual({ kind: { $case: "cel", value: "'GET'" } });
    expect(spec?.steps[0]?.retry?.maxAttempts).toBe(5);
    expect(spec?.steps[3]?.when).toBe("steps.score.output.words > 0");
    expect(json?.["runTimeout"]).toBe("600s");
  });

  it("reads canonical protobuf JSON as well, keys in either spelling", () => {
    const json = JSON.stringify(parseChainDocument(example).json);
    expect(parseChainDocument(json).spec).toEqual(parseChainDocument(example).spec);
    expect(parseChainDocument('{"runTimeout": "5s", "on_unhandled": "ON_UNHANDLED_BREAK"}').spec).toMatchObject({
      runTimeout: { seconds: 5n },
      onUnhandled: OnUnhandled.ON_UNHANDLED_BREAK,
    });
  });

  it("takes a time for itself where a length is awaited, and writes it back", () => {
    const text =
      "steps: [{id: a, wait: {duration: 1h30m}}, {id: b, wait: {duration: input.pause}}, {id: c, wait: {until: input.at}}]";
    const { json, spec, problems } = parseChainDocument(text);
    expect(problems).toEqual([]);
    expect(json?.["steps"]).toEqual([
      { id: "a", wait: { duration: { literal: "5400s" } } },
      { id: "b", wait: { duration: { cel: "input.pause" } } },
      { id: "c", wait: { until: { cel: "input.at" } } },
    ]);
    expect(parseChainDocument(formatChainDocument(spec!)).spec).toEqual(spec);
    const instants =
      "steps: [{id: a, wait: {until: 2026-01-31T12:00:00Z}}, {id: b, wait: {until: '2026-01-31T12:00:00.5+01:00'}}]";
    const waits = parseChainDocument(instants);
    expect(waits.json?.["steps"]).toEqual([
      { id: "a", wait: { until: { literal: "2026-01-31T12:00:00Z" } } },
      { id: "b", wait: { until: { literal: "2026-01-31T12:00:00.5+01:00" } } },
    ]);
    expect(parseChainDocument(formatChainDocument(waits.spec!)).spec).toEqual(waits.spec);
    expect(messages("steps: [{id: a, wait: {duration: 30}}]")).toEqual([
      "1:34 a time such as 500ms, 1s, 2m or 1h30m is expected; 30 needs a unit: 30s",
    ]);
  });

  it("takes strings for CEL and other scalars for literals", () => {
    const text =
      "output: {a: x, b: 5, c: true, d: 1.5, e: {literal: [1, {k: v}]}, f: {cel: y}, g: 9007199254740993, h: {literal: null}}";
    expect(parseChainDocument(text).json?.["output"]).toEqual({
      a: { cel: "x" },
      b: { literal: 5 },
      c: { literal: true },
      d: { literal: 1.5 },
      e: { literal: [1, { k: "v" }] },
      f: { cel: "y" },
      g: { literal: "9007199254740993" },
      h: { literal: null },
    });
    expect(parseChainDocument("steps: [{id: a, when: true}]").spec?.steps[0]?.when).toBe("true");
  });

  it("points at the character that a problem is about", () => {
    const document = parseChainDocument(example);
    const problem = ChainProblem.fromJSON({
      stepId: "score",
      field: "text",
      path: "steps[2].input.text",
      expression: "steps.pick.output.txt",
      start: 18,
      end: 21,
      message: 'SelectResponse has no field "txt"',
      suggestion: "text",
    });
    expect(locateChainProblem(problem, document, "chain.yaml")).toBe(
      'chain.yaml:17:38 step score, text: SelectResponse has no field "txt"; did you mean "text"?',
    );
    expect(describeChainProblem({ ...problem, stepId: "", field: "words", path: "output.words", suggestion: "" })).toBe(
      'output, words: SelectResponse has no field "txt"',
    );
  });

  it("finds places in every style of scalar", () => {
    const styles = {
      plain: "output:\n  a: input.x + nope\n",
      single: "output:\n  a: '''it''s'' + nope'\n",
      double: 'output:\n  a: "\\"a\\\\n\\" + \\u0027b\\u0027 + nope"\n',
      literal: "output:\n  a: |\n    input.x\n    + nope\n",
      folded: "output:\n  a: >-\n    input.x\n    + nope\n",
      multiline: "output:\n  a: input.x\n    + nope\n",
      full: "output:\n  a: {cel: input.x + nope}\n",
      key: '{"output": {"a": "input.x + nope"}}',
    };
    for (const [style, text] of Object.entries(styles)) {
      const document = parseChainDocument(text);
      const expression = (document.json!["output"] as { a: { cel: string } }).a.cel;
      const { line, column } = document.locate("output.a", expression.indexOf("nope"));
      expect(text.split("\n")[line - 1]?.slice(column - 1, column + 3), style).toBe("nope");
    }
  });

  it("locates what is not in the text at what is around it", () => {
    const document = parseChainDocument(example);
    expect(document.locate("steps[1].input.zzz")).toEqual({ line: 14, column: 5 });
    expect(document.locate("steps[0].retry.jitter")).toEqual({ line: 10, column: 5 });
    expect(document.locate("steps[9]").line).toBeGreaterThan(1);
    expect(document.locate("")).toEqual({ line: 1, column: 1 });
    expect(document.locate("steps[0].call")).toEqual({ line: 8, column: 11 });
  });

  it.each([
    ["stesp: []", '1:1 there is no setting "stesp" here (steps)'],
    ["steps: [{id: a, start_to_cloze: 1s}]", '1:17 there is no setting "start_to_cloze" here (start_to_close)'],
    ["steps: [{id: a, retry: {exponential: {inital: 1s}}}]", '1:39 there is no setting "inital" here (initial)'],
    ["run_timeout: 5", "1:14 a time such as 500ms, 1s, 2m or 1h30m is expected; 5 needs a unit: 5s"],
    ["run_timeout: soon", "1:14 a time such as 500ms, 1s, 2m or 1h30m is expected"],
    ["steps: {}", "1:8 a list is expected"],
    ["steps:\n  - fetch", "2:5 a map is expected"],
    ["steps: [{id: 1}]", "1:14 a text is expected; put it into quotes"],
    ["steps: [{id: a, priority: high}]", "1:27 a whole number is expected"],
    ["steps: [{id: a, retry: {jitter: much}}]", "1:33 a number is expected"],
    ["on_unhandled: IGNORE", "1:15 FAIL or BREAK is expected"],
    ["output: {a: }", "1:13 there is no value; leave the field out, or give it one"],
    ["output: {__proto__: x}", '1:10 "__proto__" is not the name of a field'],
    ["description: a\ndescription: b", "2:1 Map keys must be unique"],
    ["runTimeout: 1s\nrun_timeout: 2s", '2:1 "run_timeout" is set twice'],
    ["a: [", "1:5 Flow sequence in block collection"],
    ["--- \nsteps: []\n---\nsteps: []", "3:1 Source contains multiple documents"],
    ["steps: [*nobody]", "1:9 there is no value"],
    ["- a", "1:1 a map is expected"],
    ["", "1:1 there is no value"],
  ])("refuses %j", (text, expected) => {
    expect(messages(text)[0]).toContain(expected);
  });

  it("says how to write a map or a list", () => {
    expect(messages("output: {a: {b: input.c}}")[0]).toContain("\"{'key': input.field}\"");
    expect(messages("output: {a: [input.c]}")[0]).toContain('"[input.a, input.b]"');
  });

  it("is bounded in size, nesting and aliases", () => {
    expect(messages(`description: ${"x".repeat(chainDocumentBytesMax)}`)).toEqual([
      "1:1 the document is larger than 1 MiB",
    ]);
    expect(messages("[".repeat(500_000))).toEqual(["1:1 the document nests too deeply"]);
    const nested = `output: {a: {literal: ${"[".repeat(100)}${"]".repeat(100)}}}`;
    expect(messages(nested)[0]).toContain("nest deeper than 64");
    const lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"];
    for (let n = 1; n < 9; n++)
      lines.push(
        `a${n}: &a${n} [${Array(10)
          .fill(`*a${n - 1}`)
          .join(", ")}]`,
      );
    const bomb = `output:\n  a:\n    literal:\n${lines.map((line) => `      ${line}`).join("\n")}`;
    expect(messages(bomb)[0]).toContain("too large");
  });

  it("never throws, whatever the text", () => {
    const pieces = fc.constantFrom(
      "steps",
      ":",
      " ",
      "\n",
      "- ",
      "{",
      "}",
      "[",
      "]",
      "'",
      '"',
      "&a",
      "*a",
      "|",
      ">",
      "id",
      "\t",
      "#",
      "\u0000",
      "?",
      "!!",
      "%",
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(pieces, fc.string({ maxLength: 5 })), { maxLength: 30 }), (parts) => {
        const document = parseChainDocument(parts.join(""));
        expect(document.spec !== undefined || document.problems.length > 0).toBe(true);
        document.locate("steps[0].input.text", 3);
      }),
      { numRuns: 300 },
    );
  });
});

describe("times", () => {
  it.each([
    ["500ms", "0.5s"],
    ["1.5s", "1.5s"],
    ["2m", "120s"],
    ["1h30m", "5400s"],
    ["1d", "86400s"],
    ["-3s", "-3s"],
    ["0.000000001s", "0.000000001s"],
  ])("reads %s", (text, json) => expect(parseDuration(text)).toBe(json));

  it.each(["", "5", "s", "1 s", "1x", "1e3s", "99999999999d", "٣s"])("does not read %j", (text) => {
    expect(parseDuration(text)).toBeUndefined();
  });

  it("writes what it reads back", () => {
    fc.assert(
      fc.property(fc.bigInt(-100_000n, 100_000n), fc.integer({ min: 0, max: 999_999_999 }), (seconds, fraction) => {
        const nanos = seconds < 0n ? -fraction : fraction;
        const json = parseDuration(formatDuration({ seconds, nanos }))!;
        const [, sign, whole, rest] = /^(-?)(\d+)(?:\.(\d+))?s$/.exec(json)!;
        const negative = sign === "-" ? -1n : 1n;
        expect(negative * BigInt(whole!)).toBe(seconds);
        expect(Number(negative) * Number((rest ?? "").padEnd(9, "0"))).toBe(nanos);
      }),
    );
  });
});

describe("formatted chains", () => {
  it("are read back to an equal spec", () => {
    const duration = fc.option(
      fc.record({ seconds: fc.bigInt(0n, 100_000n), nanos: fc.constantFrom(0, 500_000_000, 1) }),
      { nil: undefined },
    );
    const kind = fc.oneof(
      fc.string().map((value) => ({ $case: "cel" as const, value })),
      fc
        .constantFrom(5, true, 1.5, "text", null, [1, "a"], { k: "v" })
        .map((value) => ({ $case: "literal" as const, value })),
    );
    const name = fc.stringMatching(/^[a-z][a-z0-9_]{0,8}$/);
    const fields = fc.dictionary(name, fc.record({ kind }), { maxKeys: 3, noNullPrototype: true });
    const step = fc.record({
      id: name,
      call: fc.string(),
      input: fields,
      when: fc.string(),
      startToClose: duration,
      needs: fc.array(name, { maxLength: 2 }),
    });
    const retry = { exponential: { initial: "1s", factor: 3 }, jitter: 0, maxAttempts: 2, nonRetryable: ["A"] };
    fc.assert(
      fc.property(fc.array(step, { maxLength: 3 }), fields, duration, (steps, output, runTimeout) => {
        const base = parseChainDocument(JSON.stringify({ steps: [{ id: "r", retry }] })).spec!;
        const spec: ChainSpec = {
          ...base,
          steps: [...base.steps, ...steps.map((s) => ({ ...base.steps[0]!, retry: undefined, ...s }))],
          output,
          runTimeout,
          onUnhandled: OnUnhandled.ON_UNHANDLED_BREAK,
          description: "what it does\nin two lines",
        };
        const read = parseChainDocument(formatChainDocument(spec));
        expect(read.problems).toEqual([]);
        expect(ChainSpec.encode(read.spec!).finish()).toEqual(ChainSpec.encode(spec).finish());
      }),
      { numRuns: 100 },
    );
  });
});
