import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { formatChainDocument, parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { compileProtos } from "../../../test/fixtures/compile-protos.js";
import type { Scope, Value } from "../engine/plan.js";
import { bytesToJson, jsonToBytes } from "./check.js";
import { compileChain } from "./compile-chain.js";
import { contractsOf, parseDescriptorSet } from "./descriptors.js";
import { launchContracts } from "./launch.js";

const protos = {
  "acme/desk/v1/desk.proto": `syntax = "proto3"; package acme.desk.v1;
    service DeskActions {
      rpc Rent(RentRequest) returns (Rented);
      rpc GiveBack(GiveBackRequest) returns (Rented);
    }
    message RentRequest { string place = 1; }
    message Rented { string key = 1; }
    message GiveBackRequest { string key = 1; string why = 2; }`,
};
const contracts = new Map(contractsOf(parseDescriptorSet(compileProtos(protos))).map((c) => [c.method, c]));
const rent = contracts.get("acme.desk.v1.DeskActions/Rent")!;
const giveBack = contracts.get("acme.desk.v1.DeskActions/GiveBack")!;
const back = "acme.desk.v1.DeskActions/GiveBack";

/** A desk and, behind it or not, a chair; `undo` is the desk's. */
const chain = (undo: string, { more = "", chair = "input.place" } = {}) => `contract:
  name: acme.desk.v1.Desks/Take
  input: { place: string, places: repeated string }
  output: { key: string }
steps:
  - id: desk
    call: acme.desk.v1.DeskActions/Rent
    input: { place: ${more === "" ? "input.place" : "each.value"} }
    compensate: ${undo}
${more}  - id: chair
    call: acme.desk.v1.DeskActions/Rent
    input: { place: "${chair}" }
output: { key: steps.chair.output.key }
`;
const undo = (key = "steps.desk.output.key", why = "error.reason") =>
  `{ call: ${back}, input: { key: "${key}", why: "${why}" } }`;

function compile(yaml: string) {
  const document = parseChainDocument(yaml);
  if (document.spec === undefined) throw new Error(JSON.stringify(document.problems));
  const found = compileChain(document.spec, {
    contractFor: (method) => contracts.get(method) ?? launchContracts().get(method),
    isChain: (method) => method === "acme.desk.v1.Desks/Take",
  });
  return { ...found, spec: document.spec };
}
const problemsOf = (yaml: string) => compile(yaml).problems.map(({ path, reason }) => [path, reason]);

/** The input of the chain that `chain` makes: places are its second field. */
function chainInput(contract: string, { places }: { places: string[] }): Value {
  const writer = new BinaryWriter();
  for (const place of places) writer.tag(2, WireType.LengthDelimited).string(place);
  const bytes = writer.finish();
  return { contract, sizeBytes: bytes.length, sha256: new Uint8Array(32), bytes };
}

const valueFrom = (side: "input" | "output", json: object): Value => {
  const read = jsonToBytes(rent, side, { value: json as never });
  if (!read.ok) throw new Error("the message is wrong");
  return { contract: "", sizeBytes: read.bytes.length, sha256: new Uint8Array(32), bytes: read.bytes };
};

describe("compensate", () => {
  it("is a step behind the chain's own, with limits of its own", () => {
    const { plan, pins } = compile(chain(undo()));
    expect(plan?.steps.map(({ id, undo: own, undoes }) => [id, own, undoes])).toEqual([
      ["desk", 2, undefined],
      ["chair", undefined, undefined],
      ["desk.undo", undefined, 0],
    ]);
    expect(plan?.steps[2]).toMatchObject({ needs: [0], neededBy: [], scheduleToCloseMs: 24 * 3_600_000, method: back });
    expect(plan?.steps[0]?.neededBy).toEqual([]);
    expect(pins[back]).toBe(giveBack.fingerprint);
    expect(plan?.source?.contracts.has(back)).toBe(true);
  });

  it("makes its input of the step's output and of why the run ends", () => {
    const { plan } = compile(chain(undo("steps.desk.output.key + '@' + input.place", "error.message")));
    const scope: Scope = {
      run: { id: "r", namespace: "default", method: "m", acceptedAtMs: 0 },
      input: valueFrom("input", { place: "attic" }),
      outputs: [valueFrom("output", { key: "k1" })],
      error: { reason: "CANCELLED", message: "rain", retryable: false, details: [], cause: undefined },
    };
    const bound = plan!.steps[2]!.bindInput(scope);
    if (bound.kind !== "value") throw new Error(JSON.stringify(bound));
    expect(bytesToJson(giveBack, "input", bound.value)).toEqual({ key: "k1@attic", why: "rain" });
  });

  it("has its own retries, times and queue, kept by the chain's document", () => {
    const settings =
      "retry: { fixed: { delay: 2s }, max_attempts: 7 }, start_to_close: 5s, schedule_to_close: 90s, task_queue: desks";
    const { plan, spec } = compile(chain(`{ call: ${back}, input: { key: steps.desk.output.key }, ${settings} }`));
    expect(plan?.steps[2]).toMatchObject({
      startToCloseMs: 5_000,
      scheduleToCloseMs: 90_000,
      taskQueue: "desks",
      retry: { kind: "fixed", initialMs: 2_000, attemptsMax: 7 },
    });
    expect(parseChainDocument(formatChainDocument(spec)).spec).toEqual(spec);
  });

  it.each([
    [
      "a field that the undo lacks",
      chain(`{ call: ${back}, input: { kee: "'x'" } }`),
      "steps[0].compensate.input.kee",
      "UNKNOWN_FIELD",
    ],
    ["a wrong type", chain(undo("1")), "steps[0].compensate.input.key", "WRONG_TYPE"],
    ["no callee", chain("{ input: {} }"), "steps[0].compensate.call", "UNKNOWN_ACTION"],
    [
      "an unknown one",
      chain("{ call: acme.desk.v1.DeskActions/GivBack }"),
      "steps[0].compensate.call",
      "UNKNOWN_ACTION",
    ],
    [
      "a task queue of a chain",
      chain("{ call: acme.desk.v1.Desks/Take, input: { place: input.place }, task_queue: desks }"),
      "steps[0].compensate.task_queue",
      "CONFLICT",
    ],
    [
      "a launch",
      chain(
        "{ call: taskmesh.launch.v1.LaunchActions/StartAction, input: { action: acme.desk.v1.DeskActions/GiveBack } }",
      ),
      "steps[0].compensate.call",
      "CONFLICT",
    ],
    [
      "a time without end",
      chain(`{ call: ${back}, schedule_to_close: 900000h }`),
      "steps[0].compensate.schedule_to_close",
      "OUT_OF_RANGE",
    ],
    [
      "a step that may not have run",
      chain(undo("steps.chair.output.key + '!'")),
      "steps[0].compensate.input.key",
      "MISSING_GUARD",
    ],
    [
      "a fan-out within a fan-out",
      chain(undo(), { more: "    each: { items: input.places, each: { items: input.places } }\n" }),
      "steps[0].compensate",
      "CONFLICT",
    ],
    [
      "the outputs of a fan-out that may not be there",
      chain(undo("steps.desk.output[0].key"), { more: "    each: { items: input.places }\n" }),
      "steps[0].compensate.input.key",
      "MISSING_GUARD",
    ],
    [
      "what an item does not put out",
      chain(undo("each.output.code"), { more: "    each: { items: input.places }\n" }),
      "steps[0].compensate.input.key",
      "UNKNOWN_FIELD",
    ],
  ])("refuses %s", (_name, yaml, path, reason) => {
    expect(problemsOf(yaml)).toContainEqual([path, reason]);
  });

  it("may call a chain", () => {
    const { plan, problems } = compile(chain("{ call: acme.desk.v1.Desks/Take, input: { place: input.place } }"));
    expect(problems).toEqual([]);
    expect(plan?.steps[2]).toMatchObject({ child: { onParentClose: "cancel" }, undoes: 0, retry: { attemptsMax: 1 } });
  });

  it("of a fan-out is a fan-out over the items that succeeded, one at a time, in the order that it is given", () => {
    const input = undo("each.output.key + ' of ' + each.value", "string(each.index) + error.reason");
    const { plan, problems } = compile(chain(input, { more: "    each: { items: input.places }\n" }));
    expect(problems).toEqual([]);
    const step = plan!.steps[2]!;
    expect(step).toMatchObject({ undoes: 0, needs: [], each: { parallelMax: 1, toleratedShare: 1 } });
    const item = (index: number) => ({ index, output: valueFrom("output", { key: `k${index}` }) });
    const given = chainInput(plan!.contract, { places: ["attic", "cellar", "hall"] });
    const opened = step.each!.open(
      {
        run: { id: "r", namespace: "default", method: "m", acceptedAtMs: 0 },
        input: given,
        outputs: [],
        error: { reason: "GONE", message: "", retryable: false, details: [], cause: undefined },
        undone: { total: 9, items: [item(2), item(0)] },
      },
      0,
    );
    if (opened.kind !== "value") throw new Error(JSON.stringify(opened));
    expect(opened.value.total).toBe(9);
    const inputs = opened.value.items.map((one) => {
      if (one.input.kind !== "value") throw new Error(JSON.stringify(one.input));
      return [one.key, bytesToJson(giveBack, "input", one.input.value)];
    });
    expect(inputs).toEqual([
      ["2", { key: "k2 of hall", why: "2GONE" }],
      ["0", { key: "k0 of attic", why: "0GONE" }],
    ]);
  });

  it("of a step that calls nothing is refused", () => {
    const waits = "  - id: pause\n    wait: { duration: \"duration('1s')\" }\n    compensate: ";
    const yaml = chain(undo()).replace("  - id: chair", `${waits}{ call: ${back} }\n  - id: chair`);
    expect(problemsOf(yaml)).toContainEqual(["steps[1].compensate", "CONFLICT"]);
  });

  it("may read a step that its own had waited for, and any other behind has()", () => {
    const guarded = "has(steps.chair.output) ? steps.chair.output.key : 'none'";
    expect(problemsOf(chain(undo(guarded)))).toEqual([]);
    const chair = chain(undo()).replace(
      "  - id: chair\n",
      `  - id: chair\n    compensate: ${undo("steps.chair.output.key + steps.desk.output.key")}\n`,
    );
    expect(problemsOf(chair)).toEqual([["steps[1].compensate.input.key", "MISSING_GUARD"]]);
    expect(
      problemsOf(
        chair.replace(
          '    compensate: { call: acme.desk.v1.DeskActions/GiveBack, input: { key: "steps.chair',
          "    needs: [desk]\n$&",
        ),
      ),
    ).toEqual([]);
  });
});
