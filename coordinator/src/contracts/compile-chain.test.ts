import type { JsonObject } from "@bufbuild/protobuf";
import type { ChainProblem } from "@taskmesh/proto";
import { locateChainProblem, parseChainDocument } from "@taskmesh/runtime";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import type { ChainPlan, Evaluated, Scope, Value } from "../engine/plan.js";
import { bytesToJson, jsonToBytes, type Side } from "./check.js";
import { compileAction } from "./compile-action.js";
import { type ChainEnvironment, compileChain } from "./compile-chain.js";
import type { Contract } from "./contract.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";

const protos = {
  "acme/pages/v1/pages.proto": `syntax = "proto3"; package acme.pages.v1;
    import "taskmesh/v1/options.proto"; import "buf/validate/validate.proto";
    service PageActions {
      rpc Request(RequestRequest) returns (RequestResponse) {
        option (taskmesh.v1.action) = { start_to_close: {seconds: 30}, heartbeat: {seconds: 9}, exclusive: true,
          retry: { fixed: {delay: {seconds: 2}}, max_attempts: 4 } };
      }
      rpc Select(SelectRequest) returns (SelectResponse);
      rpc Score(ScoreRequest) returns (ScoreResponse);
      rpc Render(RenderRequest) returns (RenderResponse);
    }
    enum Mood { MOOD_UNSPECIFIED = 0; MOOD_GOOD = 1; }
    message RequestRequest { string method = 1; string url = 2; }
    message RequestResponse { string text = 1; int32 status = 2; repeated Link links = 3; }
    message Link { string href = 1; Mood mood = 2; }
    message SelectRequest { string html = 1; string css = 2; oneof limit { int32 first = 3; int32 last = 4; } }
    message SelectResponse { string text = 1; }
    message ScoreRequest { string text = 1 [(buf.validate.field).required = true]; bytes raw = 2; Mood mood = 3; Link link = 4; }
    message ScoreResponse { int32 words = 1 [(buf.validate.field).int32.gte = 0]; }
    message RenderRequest { string template = 1; map<string, string> values = 2; }
    message RenderResponse { string text = 1; }`,
};
const contracts = new Map(contractsOf(parseDescriptorSet(compileProtos(protos))).map((c) => [c.method, c]));
const action = (name: string): Contract => contracts.get(`acme.pages.v1.PageActions/${name}`)!;
const environment: ChainEnvironment = {
  contractFor: (method) => contracts.get(method),
  methods: () => contracts.keys(),
};

const text = `contract:
  name: acme.pages.v1.Pages/Check
  input: { url: string }
  output: { words: int32, report: string }
run_timeout: 600s
steps:
  - id: fetch
    call: acme.pages.v1.PageActions/Request
    input: { method: "'GET'", url: input.url }
    retry: { exponential: { initial: 1s, cap: 30s }, max_attempts: 5 }
    start_to_close: 20s
  - id: pick
    call: acme.pages.v1.PageActions/Select
    input: { html: steps.fetch.output.text, css: "'body'" }
  - id: score
    call: acme.pages.v1.PageActions/Score
    input: { text: steps.pick.output.text }
  - id: report
    when: steps.score.output.words > 0
    call: acme.pages.v1.PageActions/Render
    input: { template: "'{{url}}: {{words}}'", values: "{'url': input.url, 'words': string(steps.score.output.words)}" }
output:
  words: steps.score.output.words
  report: "has(steps.report.output) ? steps.report.output.text : ''"
`;

const compile = (yaml: string, more: Partial<ChainEnvironment> = {}) => {
  const document = parseChainDocument(yaml);
  if (document.spec === undefined) throw new Error(JSON.stringify(document.problems));
  return { document, ...compileChain(document.spec, { ...environment, ...more }) };
};

/** The example with one piece of text exchanged. */
const changed = (from: string, to: string) => {
  if (!text.includes(from)) throw new Error(`the example has no ${from}`);
  return compile(text.replace(from, to));
};

function value(contract: Contract, side: Side, json: JsonObject): Value {
  const read = jsonToBytes(contract, side, { value: json });
  if (!read.ok) throw new Error(JSON.stringify(read.violations));
  return {
    contract: contract.fingerprint,
    sizeBytes: read.bytes.length,
    sha256: new Uint8Array(32),
    bytes: read.bytes,
  };
}

const scopeOf = (input: Value, outputs: (Value | undefined)[] = []): Scope => ({
  run: { id: "run-1", namespace: "default", method: "acme.pages.v1.Pages/Check", acceptedAtMs: 0 },
  input,
  outputs,
});

const shown = (contract: Contract, side: Side, result: Evaluated<Uint8Array>) =>
  result.kind === "value" ? bytesToJson(contract, side, result.value) : result;

describe("the example chain", () => {
  const { plan, contract, problems, edges, pins, warnings } = compile(text);
  const steps = plan!.steps;

  it("compiles, with the edges that its expressions make", () => {
    expect(problems).toEqual([]);
    expect(warnings).toEqual([]);
    expect(edges).toEqual([
      { from: "fetch", to: "pick" },
      { from: "pick", to: "score" },
      { from: "score", to: "report" },
    ]);
    expect(steps.map(({ id, needs, neededBy }) => [id, needs, neededBy])).toEqual([
      ["fetch", [], [1]],
      ["pick", [0], [2]],
      ["score", [1], [3]],
      ["report", [2], []],
    ]);
    expect(pins).toEqual(Object.fromEntries([...contracts.values()].map((c) => [c.method, c.fingerprint])));
    expect(plan).toMatchObject({
      method: "acme.pages.v1.Pages/Check",
      runTimeoutMs: 600_000,
      contract: contract!.fingerprint,
    });
  });

  it("runs step by step", () => {
    const outputs: (Value | undefined)[] = [];
    const scope = scopeOf(value(contract!, "input", { url: "http://x/" }), outputs);
    const bound = (index: number, name: string) => shown(action(name), "input", steps[index]!.bindInput(scope));
    expect(bound(0, "Request")).toEqual({ method: "GET", url: "http://x/" });
    outputs[0] = value(action("Request"), "output", { text: "<b>two words</b>" });
    expect(bound(1, "Select")).toEqual({ html: "<b>two words</b>", css: "body" });
    outputs[1] = value(action("Select"), "output", { text: "two words" });
    expect(bound(2, "Score")).toMatchObject({ text: "two words" });
    outputs[2] = value(action("Score"), "output", { words: 2 });
    expect(steps[3]!.condition!(scope)).toEqual({ kind: "value", value: true });
    expect(bound(3, "Render")).toEqual({ template: "{{url}}: {{words}}", values: { url: "http://x/", words: "2" } });
    expect(shown(contract!, "output", plan!.bindOutput(scope))).toEqual({ words: 2, report: "" });
    outputs[3] = value(action("Render"), "output", { text: "http://x/: 2" });
    expect(shown(contract!, "output", plan!.bindOutput(scope))).toEqual({ words: 2, report: "http://x/: 2" });
  });

  it("skips by condition", () => {
    const outputs = [undefined, undefined, value(action("Score"), "output", { words: 0 })];
    expect(steps[3]!.condition!(scopeOf(value(contract!, "input", {}), outputs))).toEqual({
      kind: "value",
      value: false,
    });
  });

  it("takes settings from the step, the action, and the defaults, in this order", () => {
    const exponential = { kind: "exponential", initialMs: 1_000, factor: 2, jitter: 0.2 };
    expect(steps[0]).toMatchObject({
      startToCloseMs: 20_000,
      heartbeatMs: 9_000,
      exclusive: true,
      taskQueue: "acme.pages.v1.PageActions",
    });
    expect(steps[0]!.retry).toMatchObject({ ...exponential, capMs: 30_000, attemptsMax: 5 });
    expect(steps[1]).toMatchObject({ startToCloseMs: 3_600_000, exclusive: false });
    expect(steps[1]!.retry).toMatchObject({ ...exponential, capMs: 60_000, attemptsMax: 3 });
    const bare = changed(
      "    retry: { exponential: { initial: 1s, cap: 30s }, max_attempts: 5 }\n    start_to_close: 20s\n",
      "",
    );
    expect(bare.plan!.steps[0]).toMatchObject({
      startToCloseMs: 30_000,
      retry: { kind: "fixed", initialMs: 2_000, attemptsMax: 4 },
    });
  });

  it("checks outputs against the pinned contract, rules included", () => {
    const check = steps[2]!.checkOutput;
    expect(check(value(action("Score"), "output", { words: 1 }).bytes!)).toBeUndefined();
    expect(check(Uint8Array.of(8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1))).toContain("words: ");
    expect(check(Uint8Array.of(10, 1, 65))).toContain("words: wire type");
  });

  it("fails the binding of an input that breaks the callee's rules", () => {
    const outputs = [undefined, value(action("Select"), "output", {})];
    const result = steps[2]!.bindInput(scopeOf(value(contract!, "input", {}), outputs));
    expect(result).toMatchObject({
      kind: "failed",
      error: { message: expect.stringContaining("text: value is required") },
    });
  });

  it("compiles to the same contract again from the pinned one", () => {
    expect(compile(text, { chainContract: contract }).contract!.fingerprint).toBe(contract!.fingerprint);
    expect(compile(text, { chainContract: contract, force: true, version: 7 }).plan).toMatchObject({ version: 7 });
  });
});

describe("a mistake", () => {
  const render = ({
    problems,
    document,
  }: {
    problems: ChainProblem[];
    document: ReturnType<typeof parseChainDocument>;
  }) => problems.map((problem) => `${problem.reason} ${locateChainProblem(problem, document, "chain.yaml")}`);
  const pick = "steps.pick.output.text";

  it("is shown with its place in the file and the nearest right name", () => {
    expect(render(changed(pick, "steps.pick.output.txt"))).toEqual([
      'UNKNOWN_FIELD chain.yaml:17:38 step score, text: SelectResponse has no field "txt"; did you mean "text"?',
    ]);
  });

  it.each([
    [
      "an unknown step",
      pick,
      "steps.pik.output.text",
      'UNKNOWN_STEP chain.yaml:17:26 step score, text: there is no step "pik"; did you mean "pick"?',
    ],
    [
      "a bare word",
      `"'GET'"`,
      "GET",
      `UNKNOWN_NAME chain.yaml:9:22 step fetch, method: unknown name "GET"; text needs quotes; did you mean "'GET'"?`,
    ],
    [
      "an unknown root",
      "url: input.url }\n",
      "url: inptu.url }\n",
      'UNKNOWN_NAME chain.yaml:9:36 step fetch, url: unknown name "inptu"; expressions read input, steps and run; did you mean "input"?',
    ],
    [
      "an unknown input field",
      "url: input.url }\n",
      "url: input.uri }\n",
      'UNKNOWN_FIELD chain.yaml:9:42 step fetch, url: CheckRequest has no field "uri"; did you mean "url"?',
    ],
    [
      "an unknown target field",
      "css:",
      "cs:",
      'UNKNOWN_FIELD chain.yaml:14:49 step pick, cs: SelectRequest has no field "cs"; did you mean "css"?',
    ],
    [
      "an unknown action",
      "PageActions/Select",
      "PageActions/Selekt",
      "UNKNOWN_ACTION chain.yaml:13:11 step pick, call: no action or chain acme.pages.v1.PageActions/Selekt is registered; did you mean",
    ],
    [
      "a call that is no name",
      "acme.pages.v1.PageActions/Select",
      "select",
      'UNKNOWN_ACTION chain.yaml:13:11 step pick, call: "select" is not a full method name',
    ],
    [
      "a wrong type",
      pick,
      "size(steps.pick.output.text)",
      "WRONG_TYPE chain.yaml:17:20 step score, text: ScoreRequest.text is string, and the expression gives int",
    ],
    [
      "a wrong operand",
      pick,
      `"'a' + steps.fetch.output.status"`,
      "WRONG_TYPE chain.yaml:17:21 step score, text: no such overload: string + int",
    ],
    [
      "a message for a string",
      pick,
      "steps.pick.output",
      "WRONG_TYPE chain.yaml:17:20 step score, text: ScoreRequest.text is string, and the expression gives acme.pages.v1.SelectResponse",
    ],
    [
      "a field of a string",
      pick,
      "steps.pick.output.text.size",
      'WRONG_TYPE chain.yaml:17:43 step score, text: "text" is not a message and has no field "size"',
    ],
    [
      "a field of a list's item",
      pick,
      '"steps.fetch.output.links[0].hre"',
      'UNKNOWN_FIELD chain.yaml:17:49 step score, text: Link has no field "hre"; did you mean "href"?',
    ],
    [
      "dyn",
      pick,
      "dyn('a')",
      "WRONG_TYPE chain.yaml:17:20 step score, text: ScoreRequest.text is string, and the expression gives dyn; convert it",
    ],
    ["syntax", pick, `"'a' +"`, "SYNTAX chain.yaml:17:26 step score, text: the expression ends too early"],
    ["an empty expression", pick, "''", "SYNTAX chain.yaml:17:20 step score, text: the expression is empty"],
    [
      "an unknown function",
      pick,
      "sice('a')",
      'UNKNOWN_FUNCTION chain.yaml:17:20 step score, text: there is no function "sice"; did you mean "size"?',
    ],
    [
      "an unknown method",
      pick,
      `"'a'.upper()"`,
      'UNKNOWN_FUNCTION chain.yaml:17:21 step score, text: there is no method "upper"',
    ],
    [
      "a function of another profile",
      pick,
      '"cel.bind(a, 1, string(a))"',
      "UNKNOWN_FUNCTION chain.yaml:17:21 step score, text: cel.bind() is not part of this CEL profile",
    ],
    ["optional access", pick, '"steps.pick.output.?text"', "SYNTAX chain.yaml:17:39 step score, text: syntax error"],
    ["a message literal", pick, '"A{b: 1}"', "SYNTAX chain.yaml:17:22 step score, text: syntax error"],
    [
      "a pattern that is none",
      pick,
      `"'a'.matches('(') ? 'a' : 'b'"`,
      "INVALID_VALUE chain.yaml:17:21 step score, text: error parsing regexp",
    ],
    ["a time that is none", pick, `"string(duration('soon'))"`, "INVALID_VALUE chain.yaml:17:28 step score, text: "],
    [
      "loops in loops in loops",
      pick,
      `"[1].map(a, [1].map(b, [1].map(c, 'x')))[0][0][0]"`,
      "TOO_LARGE chain.yaml:17:43 step score, text: map() nests more than 2 deep",
    ],
    [
      "a loop variable with a taken name",
      pick,
      `"['a'].map(input, input)[0]"`,
      'INVALID_NAME chain.yaml:17:31 step score, text: "input" is taken',
    ],
    [
      "a step's own output",
      pick,
      "string(steps.score.output.words)",
      'SELF_REFERENCE chain.yaml:17:27 step score, text: step "score" can\'t read its own output',
    ],
    [
      "an output that may be missing",
      pick,
      "steps.report.output.text + ''",
      'MISSING_GUARD chain.yaml:17:20 step score, text: step "report" may be skipped and then has no output',
    ],
    [
      "a step without output",
      pick,
      "string(steps.pick.text)",
      'UNKNOWN_FIELD chain.yaml:17:38 step score, text: step "pick" has nothing to read but its output; did you mean "output"?',
    ],
    ["steps alone", pick, "string(steps)", "UNKNOWN_STEP chain.yaml:17:27 step score, text: steps alone has no value"],
    [
      "indexed steps",
      pick,
      `"steps['pick'].output.text"`,
      "UNKNOWN_STEP chain.yaml:17:21 step score, text: steps can't be indexed",
    ],
    [
      "an unknown run field",
      pick,
      "run.nam",
      'UNKNOWN_FIELD chain.yaml:17:24 step score, text: run has no field "nam"',
    ],
    [
      "a condition that is no bool",
      "steps.score.output.words > 0",
      "steps.score.output.words",
      "WRONG_TYPE chain.yaml:19:11 step report, when: the condition is int, and must be true or false",
    ],
    [
      "a required field that is missing",
      "{ text: steps.pick.output.text }",
      "{}",
      "MISSING_FIELD chain.yaml:17:5 step score, text: ScoreRequest.text is required and is not set",
    ],
    [
      "a literal of a wrong type",
      `"'body'"`,
      "5",
      "WRONG_TYPE chain.yaml:14:50 step pick, css: expected a string, found 5",
    ],
    [
      "two members of a oneof",
      `"'body'"`,
      `"'body'", first: 1, last: 2`,
      'CONFLICT chain.yaml:14:76 step pick, last: "first" and "last" can\'t both be set',
    ],
    [
      "an unknown enum value",
      "{ text: ",
      "{ mood: \"'MOOD_BAD'\", text: ",
      'INVALID_VALUE chain.yaml:17:21 step score, mood: "MOOD_BAD" is no value of acme.pages.v1.Mood',
    ],
    [
      "a duplicate id",
      "id: pick",
      "id: fetch",
      'DUPLICATE_ID chain.yaml:12:9 step fetch, id: the id "fetch" is taken by steps[0]',
    ],
    [
      "an id that is none",
      "id: pick",
      "id: pick-it",
      'INVALID_NAME chain.yaml:12:9 step pick-it, id: "pick-it" can\'t be the id of a step',
    ],
    [
      "a need of nobody",
      "    when:",
      "    needs: [scor]\n    when:",
      'UNKNOWN_STEP chain.yaml:19:13 step report, needs: there is no step "scor"; did you mean "score"?',
    ],
    [
      "a jitter above 1",
      "max_attempts: 5",
      "jitter: 2",
      "OUT_OF_RANGE chain.yaml:10:62 step fetch, retry.jitter: 2 is out of range",
    ],
    [
      "no attempts",
      "max_attempts: 5",
      "max_attempts: 0",
      "OUT_OF_RANGE chain.yaml:10:68 step fetch, retry.max_attempts: 0 is out of range",
    ],
    [
      "a factor below 1",
      "initial: 1s",
      "factor: 0.5",
      "OUT_OF_RANGE chain.yaml:10:37 step fetch, retry.exponential.factor: 0.5 is out of range",
    ],
    [
      "a negative time",
      "start_to_close: 20s",
      "start_to_close: -1s",
      "OUT_OF_RANGE chain.yaml:11:21 step fetch, start_to_close: -1s is out of range",
    ],
    ["an endless run", "600s", "400d", "OUT_OF_RANGE chain.yaml:5:14 run_timeout: 34560000s is out of range"],
    [
      "a priority of 101",
      "    when:",
      "    priority: 101\n    when:",
      "OUT_OF_RANGE chain.yaml:19:15 step report, priority: 101 is out of range",
    ],
    ["an unknown type", "url: string", "url: strig", 'UNKNOWN_TYPE chain.yaml:3:17 contract: "strig" is no type'],
    [
      "a reserved contract",
      "acme.pages.v1.Pages/Check",
      "taskmesh.pages.v1.Pages/Check",
      "SERVICE_RESERVED chain.yaml:2:9 contract: the package of taskmesh.pages.v1.Pages is reserved",
    ],
  ])("such as %s is explained", (_what, from, to, expected) => {
    const rendered = render(changed(from, to));
    expect(rendered[0]).toContain(expected);
  });

  it("has expectation and finding apart from its sentence, for programs", () => {
    const [problem] = changed(pick, "steps.fetch.output.status").problems;
    expect(problem).toMatchObject({
      expected: "string",
      found: "int",
      expression: "steps.fetch.output.status",
      start: 0,
      end: 25,
    });
  });

  it("does not hide others, and is not repeated by what depends on it", () => {
    const { problems } = compile(
      text
        .replace("PageActions/Request", "PageActions/Nope")
        .replace(pick, "steps.pick.output.txt")
        .replace("600s", "0s"),
    );
    expect(problems.map((problem) => problem.reason)).toEqual(["OUT_OF_RANGE", "UNKNOWN_ACTION", "UNKNOWN_FIELD"]);
  });

  it("in a circle is shown as the circle", () => {
    const { problems } = changed("url: input.url }\n", "url: \"steps.score.output.words > 0 ? 'a' : input.url\" }\n");
    expect(problems).toMatchObject([{ reason: "CYCLE", message: expect.stringContaining("pick needs fetch") }]);
    const needs = changed("id: fetch", "id: fetch\n    needs: [fetch]").problems;
    expect(needs).toMatchObject([{ reason: "CYCLE", message: 'step "fetch" waits for itself' }]);
  });

  it("of size is refused: steps, expressions, trees", () => {
    const { spec } = parseChainDocument(text);
    const many = { ...spec!, steps: Array.from({ length: 1_001 }, (_, n) => ({ ...spec!.steps[0]!, id: `s${n}` })) };
    expect(compileChain(many, environment).problems[0]).toMatchObject({ reason: "TOO_LARGE", path: "steps" });
    expect(compileChain({ ...many, steps: many.steps.slice(0, 1_000), output: {} }, environment).problems).toEqual([]);
    const long = (expression: string) => changed(pick, JSON.stringify(expression)).problems[0]?.reason;
    expect(long(`'${"a".repeat(16_383)}'`)).toBe("TOO_LARGE");
    expect(long(`'${"a".repeat(16_000)}'`)).toBeUndefined();
    expect(long(`${"'a' + ".repeat(600)}'a'`)).toBe("TOO_LARGE");
    expect(long(`${"(".repeat(5_000)}'a'${")".repeat(5_000)}`)).toMatch(/TOO_LARGE|SYNTAX/);
    expect(long(`${"[".repeat(60)}'a'${"]".repeat(60)}`)).toMatch(/TOO_LARGE|SYNTAX/);
  });

  it("of an author without any care is never an exception", () => {
    const piece = fc.constantFrom(
      "steps",
      ".",
      "pick",
      "output",
      "text",
      "input",
      "(",
      ")",
      "[",
      "]",
      "'",
      "+",
      "?",
      ":",
      "has",
      "map",
      "x",
      "1",
      "1u",
      "-",
      "!",
      "&&",
      "{",
      "}",
      ",",
      " ",
      "toString",
      "constructor",
      "__proto__",
      "\ud800",
      "null",
      "in",
    );
    fc.assert(
      fc.property(
        fc.array(fc.oneof({ weight: 5, arbitrary: piece }, { weight: 1, arbitrary: fc.string() }), { maxLength: 12 }),
        (parts) => {
          const { spec } = parseChainDocument(text);
          const expression = { kind: { $case: "cel" as const, value: parts.join("") } };
          const steps = spec!.steps.map((step) =>
            step.id === "score" ? { ...step, input: { text: expression } } : step,
          );
          const { plan, problems } = compileChain({ ...spec!, steps }, environment);
          expect(plan === undefined).toBe(problems.length > 0);
          const scope = scopeOf(value(compile(text).contract!, "input", {}));
          plan?.steps[2]?.bindInput(scope);
        },
      ),
      { numRuns: 150 },
    );
  });
});

describe("guards", () => {
  const with_ = (to: string, more = "") =>
    changed("input: { template:", `${more}input: { template:`).problems.concat(
      compile(
        text.replace(
          "report: \"has(steps.report.output) ? steps.report.output.text : ''\"",
          `report: ${JSON.stringify(to)}`,
        ),
      ).problems,
    );

  it.each([
    "has(steps.report.output) ? steps.report.output.text : ''",
    "!has(steps.report.output) ? '' : steps.report.output.text",
    "has(steps.report.output.text) ? steps.report.output.text : ''",
    "has(steps.report.output) && steps.report.output.text != '' ? 'a' : 'b'",
    "!has(steps.report.output) || steps.report.output.text == '' ? 'a' : 'b'",
    "has(steps.report.output) && input.url != '' ? steps.report.output.text : ''",
    "steps.report.output.text",
  ])("are seen in %s", (expression) => expect(with_(expression)).toEqual([]));

  it.each([
    "steps.report.output.text + '!'",
    "has(steps.report.output) ? '' : steps.report.output.text",
    "has(steps.report.output) || input.url != '' ? steps.report.output.text : ''",
    "steps.report.output.text != '' && has(steps.report.output) ? 'a' : 'b'",
    "[steps.report.output.text][0]",
  ])("are missed in %s", (expression) => expect(with_(expression)[0]?.reason).toBe("MISSING_GUARD"));

  it("in a step's condition hold for its input", () => {
    const last = `  - id: last
    when: has(steps.report.output)
    call: acme.pages.v1.PageActions/Score
    input: { text: steps.report.output.text + '!' }
output:`;
    expect(changed("output:\n  words", `${last}\n  words`).problems).toEqual([]);
    expect(
      changed("output:\n  words", `${last.replace("has(steps.report.output)", "true")}\n  words`).problems[0]?.reason,
    ).toBe("MISSING_GUARD");
  });

  it("leave the target of a bare path unset when the step was skipped", () => {
    const { plan, contract } = compile(
      text.replace("\"has(steps.report.output) ? steps.report.output.text : ''\"", "steps.report.output.text"),
    );
    const outputs = [undefined, undefined, value(action("Score"), "output", { words: 1 }), undefined];
    const result = plan!.bindOutput(scopeOf(value(contract!, "input", {}), outputs));
    expect(shown(contract!, "output", result)).toEqual({ words: 1, report: "" });
  });
});

describe("a lone action", () => {
  it("is a plan of one step that passes its messages through", () => {
    const contract = action("Request");
    const plan: ChainPlan = compileAction(contract);
    expect(plan).toMatchObject({
      version: 0,
      method: contract.method,
      contract: contract.fingerprint,
      runTimeoutMs: 86_400_000,
    });
    expect(plan.steps[0]).toMatchObject({
      id: "call",
      needs: [],
      startToCloseMs: 30_000,
      retry: { kind: "fixed", attemptsMax: 4 },
      exclusive: true,
    });
    const input = value(contract, "input", { url: "x" });
    const output = value(contract, "output", { text: "y" });
    expect(plan.steps[0]!.bindInput(scopeOf(input))).toEqual({ kind: "value", value: input.bytes });
    expect(plan.bindOutput(scopeOf(input, [output]))).toEqual({ kind: "value", value: output.bytes });
    const { bytes: _, ...reference } = input;
    expect(plan.steps[0]!.bindInput(scopeOf(reference))).toEqual({ kind: "deferred" });
  });
});

describe("a chain whose contract is registered", () => {
  it("implements it", () => {
    const yaml = `contract: { name: acme.pages.v1.PageActions/Render }
steps: [{ id: a, call: acme.pages.v1.PageActions/Render, input: { template: input.template, values: input.values } }]
output: { text: steps.a.output.text }`;
    const { plan, problems } = compile(yaml);
    expect(problems).toEqual([]);
    expect(plan!.contract).toBe(action("Render").fingerprint);
    const missing = compile(
      yaml.replace("name: acme.pages.v1.PageActions/Render", "name: acme.pages.v1.PageActions/Rendr"),
    );
    expect(missing.problems[0]).toMatchObject({
      reason: "UNKNOWN_CONTRACT",
      suggestion: "acme.pages.v1.PageActions/Render",
    });
  });

  it("needs a name and a step", () => {
    expect(compile("steps: []").problems.map((problem) => problem.path)).toEqual(["contract.name", "steps"]);
  });
});
