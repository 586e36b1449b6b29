/**
 * What callers get wrong, at every border that takes input: a typed error that names the field, before anything runs. And what handlers
 * get wrong: an output that breaks the contract is no success.
 */
import type { ServiceError } from "@grpc/grpc-js";
import { defineAction, type MethodEntry } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import {
  type ConnectResponse,
  Register,
  type Registered,
  RunStatus,
  type StartRunRequest,
  TransportKind,
} from "@taskmesh/proto";
import { fromServiceError, isStatusError, type StatusError, status, unaryCall } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { compileProtos } from "../fixtures/compile-protos.js";
import { type Given, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService, pageDescriptors } from "../fixtures/page-actions.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

const take = "acme.input.v1.InputActions/Take";
const guarded = "acme.pages.v1.PageActions/Guarded";
const echo = "acme.pages.v1.PageActions/Echo";

const proto = `
syntax = "proto3";
package acme.input.v1;
import "buf/validate/validate.proto";
service InputActions { rpc Take(Input) returns (Output); }
enum Color { COLOR_UNSPECIFIED = 0; COLOR_RED = 1; }
message Input {
  string text = 1;
  int32 count = 2;
  uint32 size = 3;
  Color color = 4;
  oneof choice { string left = 5; int32 right = 6; }
  string code = 7 [(buf.validate.field).required = true];
  Input inner = 8;
  double ratio = 9;
  int64 big = 10;
  bytes data = 11;
}
message Output { string text = 1; int32 count = 2; }
`;

/** Bytes as they are: the handler says itself what goes out. */
const bytesEntry: MethodEntry<Buffer, Buffer> = {
  path: `/${take}`,
  requestStream: false,
  responseStream: false,
  requestSerialize: (bytes) => bytes,
  requestDeserialize: (bytes) => bytes,
  responseSerialize: (bytes) => bytes,
  responseDeserialize: (bytes) => bytes,
};

let mesh: InProcessMesh;
let gateway: Gateway;
let executions = 0;
/** What the handler of Take answers. */
let output: Buffer = Buffer.alloc(0);

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  gateway = await startTestGateway([mesh.address.port]);
  const { carrier } = mesh.coordinator;
  const answer = defineAction(bytesEntry, async () => {
    executions += 1;
    return output;
  });
  await mesh.serve([answer], { descriptors: compileProtos({ "acme/input/v1/input.proto": proto }), carrier });
  const blobs = defineAction(PageActionsService.echo, async (blob) => {
    executions += 1;
    return blob;
  });
  await mesh.serve([blobs], { descriptors: pageDescriptors, carrier });
});
afterEach(() => {
  output = Buffer.alloc(0);
});
afterAll(async () => {
  await gateway?.stop();
  await mesh?.stop();
});

type Start = Given<StartRunRequest>;

/** The error that a start is refused with. Fails if it is accepted, or anything ran. */
async function refusalOf(request: Start): Promise<StatusError> {
  const before = executions;
  const error = await mesh.start(request).then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!isStatusError(error)) throw new Error(`expected a refusal, got ${String(error)}`);
  expect(executions).toBe(before);
  return error;
}

const fieldsOf = (error: StatusError): string[] => error.fieldViolations.map(({ field }) => field);
const json = (text: string, method = take): Start => ({ method, input: { $case: "json", value: text } });
const bytes = (value: Buffer, method = take): Start => ({
  method,
  input: { $case: "payload", value: { data: { $case: "inline", value } } },
});
const good = '"code":"c"';

/** Every call still works: nothing that came before has left a trace. */
async function works(): Promise<void> {
  const answer = await ask(gateway, `/v1/${take}`, { body: { code: "c", text: "fine" } });
  expect(answer).toMatchObject({ status: 200, json: {} });
}

describe("input that breaks the contract, as JSON", () => {
  const nested = (depth: number): string =>
    [`{${good},"inner":`.repeat(depth), `{${good}}`, "}".repeat(depth)].join("");
  const cases: [what: string, text: string, field: string][] = [
    ["an unknown field", `{${good},"txt":"a"}`, "txt"],
    ["an unknown field inside", `{${good},"inner":{${good},"colour":1}}`, "inner.colour"],
    ["a number for a string", `{${good},"text":5}`, "text"],
    ["a string for a message", `{${good},"inner":"x"}`, "inner"],
    ["a list for a string", `{${good},"text":["a"]}`, "text"],
    ["an int32 above its range", `{${good},"count":2147483648}`, "count"],
    ["an int32 below its range", `{${good},"count":-2147483649}`, "count"],
    ["a fraction for an int32", `{${good},"count":1.5}`, "count"],
    ["a uint32 below zero", `{${good},"size":-1}`, "size"],
    ["a uint32 above its range", `{${good},"size":4294967296}`, "size"],
    ["an unknown name of an enum", `{${good},"color":"COLOR_RAD"}`, "color"],
    ["an enum number out of range", `{${good},"color":99999999999}`, "color"],
    ["both members of a oneof", `{${good},"left":"a","right":1}`, "right"],
    ["a missing field that a rule requires", `{"text":"a"}`, "code"],
    ["the same inside", `{${good},"inner":{"text":"a"}}`, "inner.code"],
    ["an int64 above 64 bits", `{${good},"big":"9223372036854775808"}`, "big"],
    ["an int64 that a JSON number rounds", `{${good},"big":9007199254740993}`, "big"],
    ["a double that is no number", `{${good},"ratio":1e999}`, "ratio"],
    ["bytes that are not base64", `{${good},"data":"@@@"}`, "data"],
  ];
  it.each(cases)("%s is refused by StartRun and by REST, which name the field", async (_what, text, field) => {
    const error = await refusalOf(json(text));
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, reason: "INPUT_INVALID" });
    expect(fieldsOf(error)).toEqual([field]);
    const answer = await ask(gateway, `/v1/${take}`, { body: text });
    expect(answer).toMatchObject({ status: 400, json: { reason: "INPUT_INVALID" } });
    expect(answer.json.errors.map((one: { field: string }) => one.field)).toEqual([field]);
  });

  const malformed: [what: string, text: string][] = [
    ["cut text", `{${good}`],
    ["no text at all", ""],
    ["a list", "[]"],
    ["null", "null"],
    ["a lone surrogate", `{${good},"text":"\\ud800"}`],
    ["a key twice", `{${good},"text":"a","text":"b"}`],
    ["100 levels", nested(100)],
    ["100,000 levels", nested(100_000)],
    ["100,000 open lists", "[".repeat(100_000)],
    ["__proto__", `{${good},"__proto__":{"text":"x"}}`],
  ];
  it.each(malformed)("%s is refused, typed", async (what, text) => {
    const error = await refusalOf(json(text));
    expect(error.code).toBe(status.INVALID_ARGUMENT);
    expect(["INPUT_INVALID", "JSON_MALFORMED"]).toContain(error.reason);
    // No body at all is a message without fields there, and lacks what the rule requires.
    const answer = await ask(gateway, `/v1/${take}`, { body: text });
    expect(answer.status, what).toBe(400);
    expect(["INPUT_INVALID", "JSON_MALFORMED"]).toContain(answer.json.reason);
    await works();
  });

  it("NUL and the ends of every range are data, and come back as they were", async () => {
    output = Buffer.from([
      0x0a, 0x03, 0x61, 0x00, 0x62, 0x10, 0x80, 0x80, 0x80, 0x80, 0xf8, 0xff, 0xff, 0xff, 0xff, 0x01,
    ]);
    const text = `{${good},"text":"\\u0000","count":-2147483648,"size":4294967295,"big":"-9223372036854775808","color":7}`;
    const answer = await ask(gateway, `/v1/${take}`, { body: text });
    expect(answer).toMatchObject({ status: 200, json: { text: "a\u0000b", count: -2147483648 } });
    const shown = await ask(gateway, `/api/v1/runs/${answer.headers["taskmesh-run-id"]}`);
    expect(shown.json.input).toMatchObject({ text: "\u0000", size: 4294967295, big: "-9223372036854775808" });
  });
});

describe("input that breaks the contract, as bytes", () => {
  const code = Buffer.from([0x3a, 0x01, 0x63]);
  const nested = (depth: number): Buffer => {
    let inner = code;
    for (let i = 0; i < depth; i++) {
      const length = inner.length;
      const size: number[] = [];
      for (let rest = length; ; rest >>>= 7) {
        size.push(rest > 127 ? (rest & 0x7f) | 0x80 : rest);
        if (rest <= 127) break;
      }
      inner = Buffer.concat([code, Buffer.from([0x42, ...size]), inner]);
    }
    return inner;
  };
  const cases: [what: string, value: Buffer, field: string | undefined][] = [
    ["a varint where a string belongs", Buffer.concat([code, Buffer.from([0x08, 0x01])]), "text"],
    ["text that is not UTF-8", Buffer.concat([code, Buffer.from([0x0a, 0x02, 0xc3, 0x28])]), "text"],
    ["a surrogate in UTF-8", Buffer.concat([code, Buffer.from([0x0a, 0x03, 0xed, 0xa0, 0x80])]), "text"],
    ["a length of 1 GB", Buffer.concat([code, Buffer.from([0x0a, 0x80, 0x80, 0x80, 0x80, 0x04])]), "text"],
    ["a missing field that a rule requires", Buffer.from([0x0a, 0x01, 0x61]), "code"],
    ["an unending varint", Buffer.concat([code, Buffer.alloc(12, 0xff)]), undefined],
    ["an unknown wire type", Buffer.concat([code, Buffer.from([0x0f])]), undefined],
    ["field number 0", Buffer.concat([code, Buffer.from([0x00, 0x00])]), undefined],
    ["150 levels", nested(150), undefined],
    ["10,000 open groups", Buffer.concat([code, Buffer.alloc(10_000, 0x7b)]), undefined],
  ];
  it.each(cases)("%s is refused", async (_what, value, field) => {
    const error = await refusalOf(bytes(value));
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, reason: "INPUT_INVALID" });
    if (field !== undefined) expect(fieldsOf(error)).toEqual([field]);
    else expect(error.fieldViolations).toHaveLength(1);
    await works();
  });

  it("50 levels are accepted", async () => {
    const runId = await mesh.start(bytes(nested(50)));
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });
});

describe("output that breaks the contract", () => {
  const broken: [what: string, value: Buffer][] = [
    ["another type", Buffer.from([0x08, 0x01])],
    ["text that is not UTF-8", Buffer.from([0x0a, 0x02, 0xc3, 0x28])],
    ["cut bytes", Buffer.from([0x0a, 0x05, 0x61])],
  ];
  it.each(broken)("%s fails the run at its first attempt", async (_what, value) => {
    output = value;
    const runId = await mesh.start(json(`{${good}}`));
    const result = await mesh.result(runId);
    expect(result.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(result.output).toBeUndefined();
    expect(JSON.stringify(result.failure)).toContain("OUTPUT_INVALID");
    const { steps } = await unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: true });
    expect(steps[0]).toMatchObject({ attempt: 1 });
  });
});

describe("an unknown callable", () => {
  it("is NOT_FOUND with its name", async () => {
    const error = await refusalOf(json("{}", "acme.input.v1.InputActions/Tak"));
    expect(error).toMatchObject({ code: status.NOT_FOUND, reason: "METHOD_NOT_FOUND" });
    expect(error.message).toContain("InputActions/Tak");
    const answer = await ask(gateway, "/v1/acme.input.v1.InputActions/Tak", { body: {} });
    expect(answer).toMatchObject({ status: 404, json: { reason: "METHOD_NOT_FOUND" } });
  });
});

const long = "x".repeat(10_000);
const names = (
  [
    "a.b",
    "*",
    ">",
    "start.1.1.1",
    "a b",
    "\u0000",
    "a\r\nPUB x 1",
    "é",
    "../..",
    "'; drop table runs; --",
    long,
  ] as const
).map((name): [shown: string, name: string] => [JSON.stringify(name.slice(0, 30)), name]);

describe("strange names", () => {
  it.each(names)("as a method or a namespace: %s is not found", async (_shown, name) => {
    expect(await refusalOf(json("{}", name))).toMatchObject({ code: status.NOT_FOUND, reason: "METHOD_NOT_FOUND" });
    const error = await refusalOf({ ...json(`{${good}}`), namespace: name });
    expect(error).toMatchObject({ code: status.NOT_FOUND, reason: "NAMESPACE_NOT_FOUND" });
    expect(error.message.length).toBeLessThan(1_000);
    await works();
  });

  it.each(names)("as the id of a step: %s is refused with its place", async (_shown, id) => {
    const spec = {
      contract: { name: "acme.input.v1.Chains/Strange", input: { text: "string" }, output: {} },
      steps: [{ id, call: echo, input: {} }],
    };
    const error = await mesh.putChain(spec).then(
      () => undefined,
      (thrown: unknown) => thrown as StatusError,
    );
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, reason: "CHAIN_INVALID" });
    expect(error!.fieldViolations[0]?.field).toBe("steps[0].id");
  });

  it.each(names)(
    "as an idempotency key or a label: %s is data, or refused by the field's name",
    async (_shown, name) => {
      const isLong = name.length > 256;
      const hasControl = [...name].some((char) => char < " ");
      const keyed = { ...json(`{${good}}`), idempotencyKey: name };
      const labelled = { ...json(`{${good}}`), labels: { [name]: name } };
      if (isLong || hasControl) {
        const error = await refusalOf(keyed);
        expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, reason: "ARGUMENT_INVALID" });
        expect(fieldsOf(error)).toEqual(["idempotency_key"]);
        const refusal = await refusalOf(labelled);
        expect(refusal.reason).toBe("ARGUMENT_INVALID");
        expect(fieldsOf(refusal)[0]).toMatch(/^labels\[/);
        return;
      }
      const runId = await mesh.start(keyed);
      expect(await mesh.start(keyed)).toBe(runId);
      const { run } = await unaryCall(mesh.runs, mesh.runs.getRun, {
        namespace: "default",
        runId: await mesh.start(labelled),
        omitPayloads: true,
      });
      expect(run?.labels).toEqual({ [name]: name });
    },
  );

  it("as a task queue never reach a subject: it has ids, or the registration is refused by the field's name", async () => {
    const descriptorSet = Buffer.from(pageDescriptors);
    for (const [shown, taskQueue] of names) {
      const answer = await register({ descriptorSet, queues: [{ taskQueue, methods: [guarded], slots: 1 }] });
      if (isStatusError(answer)) {
        expect(answer, shown).toMatchObject({ code: status.INVALID_ARGUMENT, reason: "ARGUMENT_INVALID" });
        expect(fieldsOf(answer)).toEqual(["queues[0].task_queue"]);
        expect(taskQueue.length > 255 || [...taskQueue].some((char) => char < " "), shown).toBe(true);
      } else {
        expect(answer?.lanes[0]?.taskQueue).toBe(taskQueue);
        expect(answer?.lanes[0]?.subject).toMatch(/^start\.\d+\.\d+\.\d+$/);
      }
    }
    // Workers of this SDK are told before they dial.
    for (const taskQueue of ["*", ">", "a b", long]) {
      const call = defineAction(PageActionsService.guarded, async () => ({ words: 1 }), { taskQueue });
      await expect(mesh.serve([call])).rejects.toThrow("is no queue name");
    }
  });

  it.each(["a.b", "start.1.1.1", "A-b_c.9"])("as the task queue %s carry work like any other", async (taskQueue) => {
    const call = defineAction(PageActionsService.guarded, async () => ({ words: 5 }), { taskQueue });
    const worker = await mesh.serve([call], { carrier: mesh.coordinator.carrier });
    const cel = (value: string) => ({ kind: { $case: "cel" as const, value } });
    const chain = "acme.input.v1.Chains/Queued";
    await mesh.putChain({
      contract: { name: chain, input: { text: "string" }, output: { words: "int32" } },
      steps: [{ id: "only", call: guarded, taskQueue, input: { text: cel("input.text") } }],
      output: { words: cel("steps.only.output.words") },
    });
    const answer = await ask(gateway, `/v1/${chain}`, { body: { text: "two" } });
    expect(answer).toMatchObject({ status: 200, json: { words: 5 } });
    await worker.stop();
  });
});

/** Registers as a worker of another SDK would, and leaves. The answer, or the refusal. */
function register(fields: Given<Register>): Promise<Registered | StatusError | undefined> {
  return new Promise((resolve) => {
    const call = mesh.registry.connect();
    call.on("data", ({ message }: ConnectResponse) => {
      if (message?.$case === "registered") resolve(message.value);
      call.end();
    });
    call.on("error", (error: ServiceError) => resolve(fromServiceError(error)));
    call.on("end", () => resolve(undefined));
    const transports = [TransportKind.TRANSPORT_KIND_RELAY];
    call.write({
      message: {
        $case: "register",
        value: Register.fromPartial({ namespace: "default", transports, ...fields } as never),
      },
    });
  });
}
