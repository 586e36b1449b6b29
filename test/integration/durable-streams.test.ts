/** Rpcs that return a stream: what a caller gets while the handler is at work, and what is on record afterwards. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type ActionContext, defineStream, fail } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { RunStatus } from "@taskmesh/proto";
import { formatAddress, fromServiceError, status } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { compileService } from "../fixtures/dynamic-actions.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";
import { openStockCaller, type StockCall, type StockCaller } from "../fixtures/stock-caller.js";

const service = "acme.letters.v1.LetterActions";
const compiled = compileService(
  "acme/letters.proto",
  `syntax = "proto3";
  package acme.letters.v1;
  import "taskmesh/v1/options.proto";
  service LetterActions {
    rpc Spell(Word) returns (stream Letter);
    rpc Endless(Word) returns (stream Letter) { option (taskmesh.v1.action) = { cancel_with_call: true }; }
  }
  message Word { string text = 1; int32 copies = 2; }
  message Letter { string text = 1; int32 number = 2; }`,
);
const word = compiled.message("acme.letters.v1.Word");
const letter = compiled.message("acme.letters.v1.Letter");
const inputOf = (text: string, copies = 1) => toBinary(word, create(word, { text, copies } as never));
const textOf = (bytes: Uint8Array): string => (fromBinary(letter, bytes) as unknown as { text: string }).text;
const wait = { timeout: 60_000, interval: 50 };

let mesh: InProcessMesh;
let gateway: Gateway;
let caller: StockCaller;
/** Lets handlers that stand at "|" go on. */
let goOn = (): void => {};
let ended = 0;

async function* spell({ text, copies }: { text: string; copies: number }, context: ActionContext) {
  let number = 0;
  for (const one of text) {
    if (one === "|") {
      await new Promise<void>((resolve) => {
        goOn = resolve;
      });
    } else if (one === "?" && context.attempt === 1) throw fail.retryable("STUCK", "try again");
    else if (one === "!") throw fail.final("OUT_OF_LETTERS", "no more");
    else if (one === "L") yield { text: "l".repeat(300_000), number: ++number };
    else if (one !== "?") for (let copy = 0; copy < copies; copy++) yield { text: one, number: ++number };
  }
}

async function* endless(_: unknown, { signal }: ActionContext) {
  try {
    for (;;) {
      yield { text: "x", number: 0 };
      await new Promise((resolve) => setTimeout(resolve, 20));
      if (signal.aborted) return;
    }
  } finally {
    ended += 1;
  }
}

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  caller = openStockCaller(mesh.address);
  gateway = await startTestGateway([mesh.address.port]);
  const actions = [
    defineStream(compiled.entry(`${service}/Spell`), spell),
    defineStream(compiled.entry(`${service}/Endless`), endless),
  ];
  await mesh.serve(actions, { descriptors: compiled.descriptors, transports: ["relay"] });
  await vi.waitFor(() => call("ready").done, wait);
}, 120_000);
afterAll(async () => {
  caller?.close();
  await gateway?.stop();
  await mesh?.stop();
});

const call = (text: string, headers: Record<string, string> = {}, copies = 1): StockCall =>
  caller.call(`${service}/Spell`, inputOf(text, copies), { headers });
const seen = (one: StockCall): string => one.messages.map(textOf).join("");

async function recorded(runId: string): Promise<string> {
  const { output, status: ending } = await mesh.result(runId);
  expect(ending).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  return output?.data?.$case === "inline" ? textOf(output.data.value) : "";
}

describe("a stock client of an rpc that returns a stream", () => {
  it("gets each output as it is emitted, and last, once, the one that is recorded", async () => {
    const made = call("ab|cd");
    await vi.waitFor(() => expect(seen(made)).toBe("ab"), wait);
    goOn();
    await made.done;
    expect(seen(made)).toBe("abcd");
    expect(await recorded(await made.runId)).toBe("d");
    expect((await made.trailer).get("taskmesh-outputs-missed")).toEqual([]);
  });

  it("gets many of them without a loss", async () => {
    const made = call("xyz", {}, 200);
    await made.done;
    expect(seen(made)).toBe("x".repeat(200) + "y".repeat(200) + "z".repeat(200));
  });

  it("gets what another attempt emits after a retry, and the failure after what came before it", async () => {
    const retried = call("ab?c");
    await retried.done;
    expect(seen(retried)).toBe("ababc");
    const failed = call("ab!");
    const error = fromServiceError(await failed.done.catch((thrown) => thrown));
    expect(error).toMatchObject({
      code: status.ABORTED,
      reason: "RUN_FAILED",
      metadata: { failure: "OUT_OF_LETTERS" },
    });
    expect(seen(failed)).toBe("ab");
  });

  it("finds the run again by its key, and gets what is emitted from then on", async () => {
    const headers = { "taskmesh-idempotency-key": "spelled once" };
    const first = call("ab|cd", headers);
    await vi.waitFor(() => expect(seen(first)).toBe("ab"), wait);
    first.cancel();
    const again = call("ab|cd", headers);
    expect(await again.runId).toBe(await first.runId);
    goOn();
    await again.done;
    expect(seen(again)).toBe("cd");
    const late = call("ab|cd", headers);
    await late.done;
    expect(seen(late)).toBe("d");
  });

  it("gets nothing where it does not wait", async () => {
    const later = call("abc", { "taskmesh-async": "true" });
    expect(await later.done).toEqual([]);
    expect(await recorded(await later.runId)).toBe("c");
  });

  it("gets outputs that travel by reference inside the mesh in their place", async () => {
    const made = call("aLbL");
    await made.done;
    expect(made.messages.map(textOf).map(({ length }) => length)).toEqual([1, 300_000, 1, 300_000]);
  });

  it("ends the handler where it stands when it leaves, if the contract says so", async () => {
    const made = caller.call(`${service}/Endless`, inputOf(""));
    await vi.waitFor(() => expect(made.messages.length).toBeGreaterThan(3), wait);
    const runId = await made.runId;
    made.cancel();
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(ended).toBe(1);
  });

  it("can be buf curl, which knows the rpc from reflection alone", async () => {
    const url = `http://${formatAddress(mesh.address)}/${service}/Spell`;
    const buf = join(import.meta.dirname, "../../node_modules/.bin/buf");
    const args = ["curl", "--protocol=grpc", "--http2-prior-knowledge", "-d", '{"text":"ab","copies":1}', url];
    const { stdout } = await promisify(execFile)(buf, args);
    expect(
      stdout
        .trim()
        .split(/\n(?=\{)/)
        .map((one) => JSON.parse(one)),
    ).toEqual([
      { text: "a", number: 1 },
      { text: "b", number: 2 },
    ]);
  });

  it("may be a chain's step: its last output goes on, as one message", async () => {
    await mesh.putChain({
      contract: { name: "acme.letters.v1.Chains/Last", input: { text: "string" }, output: { text: "string" } },
      steps: [{ id: "spell", call: `${service}/Spell`, input: cels({ text: "input.text", copies: "1" }) }],
      output: cels({ text: "steps.spell.output.text" }),
    });
    const runId = await mesh.start({
      method: "acme.letters.v1.Chains/Last",
      input: { $case: "json", value: '{"text":"abc"}' },
    });
    const { output } = await mesh.result(runId);
    expect(output?.data?.$case === "inline" && textOf(output.data.value)).toBe("c");
  });
});

const cels = (fields: Record<string, string>) =>
  Object.fromEntries(
    Object.entries(fields).map(([field, value]) => [field, { kind: { $case: "cel" as const, value } }]),
  );

describe("the same over REST", () => {
  const post = (accept: string, text: string) =>
    ask(gateway, `/v1/${service}/Spell`, { method: "POST", body: { text, copies: 1 }, headers: { accept } });

  it("is server-sent events, lines of JSON, or the result alone", async () => {
    const events = await post("text/event-stream", "abc");
    expect(events.headers["content-type"]).toContain("text/event-stream");
    const runId = String(events.headers["taskmesh-run-id"]);
    const outputs = ["a", "b", "c"].map((text, i) => ({ text, number: i + 1 }));
    const told = events.text.split("\n\n").filter((event) => event.startsWith("event: "));
    expect(told).toEqual([
      ...outputs.map((output) => `event: output\ndata: ${JSON.stringify(output)}`),
      `event: end\ndata: ${JSON.stringify({ runId })}`,
    ]);
    expect(await recorded(runId)).toBe("c");

    const lines = (await post("application/x-ndjson", "abc")).text.trim().split("\n");
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      ...outputs.map((output) => ({ output })),
      { end: { runId: expect.any(String) } },
    ]);
    expect((await post("application/json", "abc")).json).toEqual(outputs.at(-1));
  });

  it("is a problem document where the call is refused, and a last problem where the run fails", async () => {
    const refused = await ask(gateway, `/v1/${service}/Spell`, {
      method: "POST",
      body: { texts: "abc" },
      headers: { accept: "application/x-ndjson" },
    });
    expect(refused).toMatchObject({ status: 400, json: { reason: "INPUT_INVALID" } });
    const lines = (await post("application/x-ndjson", "a!")).text.trim().split("\n");
    expect(lines.map((line) => JSON.parse(line))).toMatchObject([
      { output: { text: "a" } },
      { problem: { reason: "RUN_FAILED", metadata: { failure: "OUT_OF_LETTERS" } } },
    ]);
  });
});
