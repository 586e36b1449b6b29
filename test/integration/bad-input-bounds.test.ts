/** The bounds of what callers may send: one byte below, exact, one byte above; and one idempotency key sent 200 times at once. */
import { defineAction } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { RunStatus, StartRunRequest } from "@taskmesh/proto";
import { inlineBytesMax, isStatusError, payloadBytesMax, type StatusError, status } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Given, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService } from "../fixtures/page-actions.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

const score = "acme.pages.v1.PageActions/Score";
const echo = "acme.pages.v1.PageActions/Echo";
const mebi = 1024 * 1024;

let mesh: InProcessMesh;
let gateway: Gateway;
let executions = 0;

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  gateway = await startTestGateway([mesh.address.port]);
  const words = defineAction(PageActionsService.score, async ({ text }) => {
    executions += 1;
    return { words: text.split(/\s+/).length };
  });
  const blobs = defineAction(PageActionsService.echo, async (blob) => {
    executions += 1;
    return blob;
  });
  await mesh.serve([words, blobs], { carrier: mesh.coordinator.carrier });
});
afterAll(async () => {
  await gateway?.stop();
  await mesh?.stop();
});

type Start = Given<StartRunRequest>;
const json = (text: string, method = score): Start => ({ method, input: { $case: "json", value: text } });
const bytes = (value: Buffer): Start => ({
  method: echo,
  input: { $case: "payload", value: { data: { $case: "inline", value } } },
});

/** The error that a start is refused with. Fails if it is accepted, or anything ran. */
async function refusalOf(request: Start): Promise<StatusError> {
  const before = executions;
  const error = await mesh.start(request).catch((thrown: unknown) => thrown);
  if (!isStatusError(error)) throw new Error(`expected a refusal, got ${String(error)}`);
  expect(executions).toBe(before);
  return error;
}

/** Calls still work. */
async function works(): Promise<void> {
  expect(await ask(gateway, `/v1/${score}`, { body: { text: "a b" } })).toMatchObject({
    status: 200,
    json: { words: 2 },
  });
}

describe("one idempotency key", () => {
  it("200 times at once is one run, by gRPC; with another input or method it is refused", async () => {
    const before = executions;
    const request = { ...json('{"text":"once"}'), idempotencyKey: "two hundred" };
    const ids = await Promise.all(Array.from({ length: 200 }, () => mesh.start(request)));
    expect(new Set(ids).size).toBe(1);
    await mesh.result(ids[0]!);
    expect(executions).toBe(before + 1);
    for (const other of [json('{"text":"twice"}'), json("{}", echo)]) {
      const error = await refusalOf({ ...other, idempotencyKey: "two hundred" });
      expect(error).toMatchObject({ code: status.ALREADY_EXISTS, reason: "IDEMPOTENCY_KEY_REUSED" });
    }
  });

  it("with 200 bodies at once is one run, and 199 refusals", async () => {
    const outcomes = await Promise.allSettled(
      Array.from({ length: 200 }, (_, i) =>
        mesh.start({ ...json(`{"text":"body ${i}"}`), idempotencyKey: "many bodies" }),
      ),
    );
    const refused = outcomes
      .filter((one) => one.status === "rejected")
      .map((one) => (one.reason as StatusError).reason);
    expect(refused).toEqual(new Array(199).fill("IDEMPOTENCY_KEY_REUSED"));
  });
});

/** A Blob of exactly `size` encoded bytes. */
function blobOf(size: number): Buffer {
  for (let data = size; data > 0; data--) {
    const encoded = PageActionsService.echo.requestSerialize({ data: Buffer.alloc(data, 7) });
    if (encoded.length === size) return encoded;
    if (encoded.length < size) break;
  }
  throw new Error(`no Blob has ${size} bytes`);
}

describe("sizes at the borders", () => {
  it.each([inlineBytesMax - 1, inlineBytesMax, inlineBytesMax + 1])(
    "a message of %i bytes goes there and back, inline up to the bound and by reference above",
    async (size) => {
      const runId = await mesh.start(bytes(blobOf(size)));
      const result = await mesh.result(runId);
      expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
      expect(Number(result.output?.sizeBytes)).toBe(size);
      expect(result.output?.data?.$case).toBe(size > inlineBytesMax ? "reference" : "inline");
    },
  );

  it("a request of 4 MiB is taken, a byte more is RESOURCE_EXHAUSTED", async () => {
    const envelope = (size: number) => ({ namespace: "default", ...bytes(blobOf(size)) });
    // What StartRunRequest adds around the input: found by asking for the largest that passes.
    const overhead =
      StartRunRequest.encode(StartRunRequest.fromPartial(envelope(3 * mebi) as never)).finish().length - 3 * mebi;
    for (const size of [4 * mebi - overhead - 1, 4 * mebi - overhead]) {
      const runId = await mesh.start(bytes(blobOf(size)));
      expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    }
    const error = await refusalOf(bytes(blobOf(4 * mebi - overhead + 1)));
    expect(error.code).toBe(status.RESOURCE_EXHAUSTED);
    await works();
  });

  it("a payload of 64 MiB + 1 is PAYLOAD_TOO_LARGE by PutPayload and 413 by REST", { timeout: 120_000 }, async () => {
    const failed = await new Promise<{ code: number; details: string } | undefined>((resolve) => {
      const call = mesh.payloads.putPayload((error) => resolve(error ?? undefined));
      call.on("error", () => {});
      for (let sent = 0; sent < payloadBytesMax; sent += mebi) {
        call.write({ namespace: sent === 0 ? "default" : "", chunk: Buffer.alloc(mebi) });
      }
      call.write({ namespace: "", chunk: Buffer.alloc(1) });
      call.end();
    });
    expect(failed?.code).toBe(status.RESOURCE_EXHAUSTED);
    const before = executions;
    const body = Buffer.alloc(payloadBytesMax + 1, 0x20);
    expect(await ask(gateway, `/v1/${score}`, { body })).toMatchObject({
      status: 413,
      json: { reason: "PAYLOAD_TOO_LARGE" },
    });
    expect(executions).toBe(before);
    await works();
  });
});
