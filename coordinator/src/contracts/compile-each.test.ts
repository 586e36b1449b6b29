/** Fan-outs over chains, within one another, and over waits: what is checked when they are saved, and the plans that they give. */
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { formatChainDocument, parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import { type ChainPlan, internalContract, type Scope, type StepPlan, type Value } from "../engine/plan.js";
import { encodeItems } from "./cel/items.js";
import { bytesToJson, jsonToBytes } from "./check.js";
import { compileChain } from "./compile-chain.js";
import { innerOf, innerPath, placeOf } from "./compile-inner.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";
import { launchContracts } from "./launch.js";

const protos = {
  "acme/lib/v1/lib.proto": `syntax = "proto3"; package acme.lib.v1;
    service Library {
      rpc Count(CountRequest) returns (Counted);
      rpc Shelve(Shelves) returns (Counted);
    }
    message CountRequest { string text = 1; }
    message Counted { int32 words = 1; }
    message Shelves { repeated Shelf shelves = 1; map<string, Shelf> named = 2; }
    message Shelf { string name = 1; repeated string books = 2; }`,
};
const contracts = new Map(contractsOf(parseDescriptorSet(compileProtos(protos))).map((c) => [c.method, c]));
const count = contracts.get("acme.lib.v1.Library/Count")!;
const shelve = contracts.get("acme.lib.v1.Library/Shelve")!;

const chain = (step: string, output = "1") => `
contract: { name: acme.lib.v1.Library/Shelve }
steps:
  - id: a
${step
  .trim()
  .split("\n")
  .map((line) => `    ${line.trim()}`)
  .join("\n")}
output: { words: "${output}" }
`;
const nested = (
  inner = "{ items: each.value.books, max_parallel: 3 }",
  text = "each.outer.value.name + each.value",
) => `
call: acme.lib.v1.Library/Count
each: { items: input.shelves, max_parallel: 2, tolerated_failures: 1, each: ${inner} }
input: { text: "${text}" }
retry: { fixed: { delay: 1s }, max_attempts: 4 }
start_to_close: 7s`;

function compile(yaml: string) {
  const { spec, problems } = parseChainDocument(yaml);
  if (spec === undefined) throw new Error(JSON.stringify(problems));
  const environment = {
    contractFor: (method: string) => contracts.get(method) ?? launchContracts().get(method),
    chainContract: shelve,
    version: 3,
  };
  return { ...compileChain(spec, { ...environment, isChain: (method) => method === shelve.method }), spec };
}
const problemsOf = (yaml: string) => compile(yaml).problems.map(({ path, reason }) => [path, reason]);

function planOf(yaml: string): ChainPlan {
  const { plan, problems } = compile(yaml);
  if (plan === undefined) throw new Error(JSON.stringify(problems));
  return plan;
}

function scopeOf(json: object): Scope {
  const read = jsonToBytes(shelve, "input", { value: json as never });
  if (!read.ok) throw new Error("the message is wrong");
  const input: Value = { contract: "", sizeBytes: read.bytes.length, sha256: new Uint8Array(32), bytes: read.bytes };
  return { run: { id: "r", namespace: "default", method: "m", acceptedAtMs: 0 }, input, outputs: [] };
}
const shelves = { shelves: [{ name: "A", books: ["x"] }, { name: "B" }, { name: "C", books: ["y", "z"] }] };

/** The inputs that the step's items have. */
function open(step: StepPlan, scope: Scope, from = 0): Uint8Array[] {
  const opened = step.each!.open(scope, from);
  if (opened.kind !== "value") throw new Error(JSON.stringify(opened));
  return opened.value.items.map(({ input }) => {
    if (input.kind !== "value") throw new Error(JSON.stringify(input));
    return input.value;
  });
}
const texts = (step: StepPlan, scope: Scope) =>
  open(step, scope).map((bytes) => (bytesToJson(count, "input", bytes) as { text?: string }).text);

describe("a fan-out within a fan-out", () => {
  it("has a plan of its own for each outer item, with the settings of the calls", () => {
    const [outer] = planOf(chain(nested())).steps;
    expect(outer).toMatchObject({
      each: { kind: "list", parallelMax: 2, toleratedCount: 1 },
      retry: { attemptsMax: 1 },
    });
    const inner = outer!.child!.inner!;
    expect(inner).toMatchObject({
      method: "acme.lib.v1.Library/Shelve.a",
      version: 3,
      outputContract: internalContract,
    });
    expect(inner.steps).toMatchObject([
      { id: "a", each: { parallelMax: 3, toleratedCount: 0 }, retry: { attemptsMax: 4 }, startToCloseMs: 7_000 },
    ]);
    expect(outer!.checkOutput(new Uint8Array([255]))).toBeUndefined();
  });

  it("reads the inner item as `each`, and the one around it as `each.outer`", () => {
    const [outer] = planOf(chain(nested())).steps;
    const scope = scopeOf(shelves);
    expect(open(outer!, scope).map(placeOf)).toEqual([0, 1, 2]);
    expect(open(outer!, scope, 2).map(placeOf)).toEqual([2]);
    const [inner] = outer!.child!.inner!.steps;
    expect([0, 1, 2].map((at) => texts(inner!, { ...scope, above: [at] }))).toEqual([["Ax"], [], ["Cy", "Cz"]]);
  });

  it("is at most three deep, and knows all of them", () => {
    const third = `{ items: "[each.value + 'a', each.value + 'b']" }`;
    const text = "string(each.outer.outer.index) + each.outer.value + each.value";
    const [outer] = planOf(chain(nested(`{ items: each.value.books, each: ${third} }`, text))).steps;
    const middle = outer!.child!.inner!.steps[0]!;
    expect(open(middle, { ...scopeOf(shelves), above: [2] }).map(placeOf)).toEqual([0, 1]);
    const last = middle.child!.inner!;
    expect(last.method).toBe("acme.lib.v1.Library/Shelve.a.a");
    expect(texts(last.steps[0]!, { ...scopeOf({ shelves: [{ books: ["x"] }] }), above: [0, 0] })).toEqual([
      "0xxa",
      "0xxb",
    ]);
    const fourth = `{ items: each.value.books, each: { items: "['x']", each: { items: "['x']", each: { items: "['x']" } } } }`;
    expect(problemsOf(chain(nested(fourth, "'x'")))).toEqual([["steps[0].each.each.each.each", "TOO_LARGE"]]);
  });

  it("is found by the method of its runs", () => {
    const plan = planOf(chain(nested()));
    const { chain: method, path } = innerPath("acme.lib.v1.Library/Shelve.a");
    expect([method, path]).toEqual(["acme.lib.v1.Library/Shelve", ["a"]]);
    expect(innerOf(plan, path).within?.above()).toBe(plan);
    expect(innerPath(method)).toEqual({ chain: method, path: [] });
    expect(() => innerOf(plan, ["b"])).toThrow("step b");
  });

  it("puts out a list of lists, or of maps", () => {
    expect(problemsOf(chain(nested(), "steps.a.output[2][0].words"))).toEqual([]);
    expect(problemsOf(chain(nested(), "steps.a.output[2].words"))).toContainEqual(["output.words", "WRONG_TYPE"]);
    const byName = nested().replace("items: input.shelves", "entries: input.named");
    expect(problemsOf(chain(byName, "size(steps.a.output['n']) + steps.a.output['n'][0].words"))).toEqual([]);
    expect(problemsOf(chain(nested("{ items: each.value.books }", "each.outer.key")))).toEqual([
      ["steps[0].input.text", "UNKNOWN_FIELD"],
    ]);
    const plan = planOf(chain(nested(), "steps.a.output[1][0].words"));
    const words = (n: number) => ({ key: "", bytes: new Uint8Array([8, n]) });
    const lists = [[words(1)], [words(2), words(3)]].map((bytes) => ({ key: "", bytes: encodeItems(bytes, "list") }));
    const bytes = encodeItems(lists, "list");
    const output: Value = { contract: "", sizeBytes: bytes.length, sha256: new Uint8Array(32), bytes };
    const bound = plan.bindOutput({ ...scopeOf({}), outputs: [output] });
    if (bound.kind !== "value") throw new Error(JSON.stringify(bound));
    expect(bytesToJson(shelve, "output", bound.value)).toEqual({ words: 2 });
  });

  it("is kept by the chain's document", () => {
    const { spec } = compile(chain(nested()));
    expect(parseChainDocument(formatChainDocument(spec)).spec).toEqual(spec);
    expect(spec.steps[0]?.each?.each).toMatchObject({ items: "each.value.books", maxParallel: 3 });
  });

  it.each([
    ["over nothing", nested("{ max_parallel: 3 }"), "steps[0].each.each", "MISSING_VALUE"],
    ["over no list", nested("{ items: each.value.name }"), "steps[0].each.each.items", "WRONG_TYPE"],
    [
      "over a field that the outer item lacks",
      nested("{ items: each.value.boks }"),
      "steps[0].each.each.items",
      "UNKNOWN_FIELD",
    ],
    [
      "with too many at once",
      nested("{ items: each.value.books, max_parallel: 5000 }"),
      "steps[0].each.each.max_parallel",
      "OUT_OF_RANGE",
    ],
  ])("is refused %s", (_what, step, path, reason) => {
    expect(problemsOf(chain(step))).toContainEqual([path, reason]);
  });

  it("knows no outer item in the outermost expression", () => {
    expect(problemsOf(chain(nested().replace("input.shelves", "each.value")))).toContainEqual([
      "steps[0].each.items",
      "UNKNOWN_NAME",
    ]);
  });
});

describe("a fan-out over a chain", () => {
  it("has children for items", () => {
    const step = `
      call: acme.lib.v1.Library/Shelve
      each: { items: input.shelves }
      input: { shelves: "[each.value]" }
      parent_close: WAIT`;
    expect(planOf(chain(step)).steps[0]).toMatchObject({
      child: { onParentClose: "wait" },
      each: { parallelMax: 500 },
    });
    expect(problemsOf(chain(`${step}\n heartbeat: 1s`))).toEqual([["steps[0].heartbeat", "CONFLICT"]]);
  });
});

describe("a fan-out over a wait", () => {
  const ask = `
    each: { items: input.shelves }
    human: { title: "'Count ' + each.value.name", output: { words: int32 } }
    schedule_to_close: 48h`;

  it("has a run with that step for each item, whose input is made where the outer item is known", () => {
    const [step] = planOf(chain(ask, "steps.a.output[0].words")).steps;
    expect(step!.wait).toBeUndefined();
    expect(step!.scheduleToCloseMs).toBeUndefined();
    const inner = step!.child!.inner!;
    expect(inner).toMatchObject({ outputContract: step!.contract });
    expect(inner.steps[0]).toMatchObject({ wait: { kind: "human" }, scheduleToCloseMs: 48 * 3_600_000 });
    const { bindInput, wait } = inner.steps[0]!;
    expect(bindInput(scopeOf(shelves))).toEqual({ kind: "deferred" });
    const bound = bindInput({ ...scopeOf(shelves), above: [2] });
    if (bound.kind !== "value" || wait?.kind !== "human") throw new Error(JSON.stringify(bound));
    expect(wait.read(bound.value, 0).title).toBe("Count C");
    expect(new BinaryReader(bound.value).len).toBeGreaterThan(0);
  });

  it("may be a pause", () => {
    const pause = `each: { items: input.shelves }\nwait: { duration: "duration(string(each.index) + 's')" }`;
    expect(planOf(chain(pause)).steps[0]!.child!.inner!.steps[0]!.wait).toMatchObject({ kind: "timer" });
  });

  it("is refused with escalations, as a launch is for items", () => {
    const form = `human: { title: "'T'", output: { words: int32 }, escalations: [{ after: 1s, steps: [] }] }`;
    const launch = `call: taskmesh.launch.v1.LaunchActions/StartAction\ninput: { action: a.v1.A/B }`;
    for (const [step, message] of [
      [form, "the form of a fan-out can't have escalations"],
      [launch, "a fan-out can't launch"],
    ] as const) {
      const { problems } = compile(chain(`each: { items: input.shelves }\n${step}`));
      const found = problems.find(({ path }) => path === "steps[0].each");
      expect(found).toMatchObject({ reason: "CONFLICT" });
      expect(found?.message).toContain(message);
    }
  });

  it.each([
    ["signal: { output: { words: int32 } }", "signal"],
    ["callback: { output: { words: int32 } }", "callback"],
    ["switch: { cases: [{ when: 'true', steps: [] }] }", "switch"],
  ])("is refused as %s", (step, setting) => {
    const { problems } = compile(chain(`each: { items: input.shelves }\n${step}`));
    const found = problems.find(({ path }) => path === "steps[0].each");
    expect(found).toMatchObject({ reason: "CONFLICT", expected: "call, wait or human" });
    expect(found?.message).toContain(`"${setting}"`);
  });
});
