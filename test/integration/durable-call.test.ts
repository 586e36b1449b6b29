/** Registered contracts as plain gRPC methods: what a stock stub, and a tool without any schema, get from a coordinator. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { Client, Metadata, type ServiceError } from "@grpc/grpc-js";
import { defineAction, fail, startWorker, type Worker } from "@taskmesh/action-sdk";
import { type Coordinator, createCoordinator, openPglite } from "@taskmesh/coordinator";
import { RunFailed, RunServiceClient, RunStatus } from "@taskmesh/proto";
import {
  coordinatorConfig,
  createClient,
  createLogger,
  formatAddress,
  MemoryBus,
  setLogLevel,
  status,
  unaryCall,
} from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { PageActionsService, pageDescriptors } from "../fixtures/page-actions.js";

const { score, echo } = PageActionsService;
const runIdKey = "taskmesh-run-id";

let coordinator: Coordinator;
let worker: Worker;
let client: Client;
let runs: RunServiceClient;
let calls = 0;

beforeAll(async () => {
  setLogLevel("silent");
  const env = { TASKMESH_GRPC_ADDRESS: "127.0.0.1:0", TASKMESH_METRICS_ADDRESS: "off" };
  const bus = new MemoryBus();
  coordinator = createCoordinator(coordinatorConfig(env, { embedded: true }), {
    database: await openPglite(),
    carrier: (id) => bus.carrier(id),
    exclusive: true,
  });
  await coordinator.start();
  const address = formatAddress(coordinator.listener.address);
  client = createClient(Client, { addresses: [coordinator.listener.address] });
  runs = createClient(RunServiceClient, { addresses: [coordinator.listener.address] });
  worker = await startWorker({
    descriptors: pageDescriptors,
    actions: [
      defineAction(score, async ({ text }, { attempt }) => {
        calls += 1;
        if (text === "refuse") throw fail.final("TOO_BORING", "nothing to see");
        if (text === "flaky" && attempt < 2) throw fail.retryable("TRY_AGAIN", "not yet");
        return { words: text.split(" ").length };
      }),
      defineAction(echo, async (blob) => blob),
    ],
    address,
    transports: ["relay"],
    handleSignals: false,
    quiet: true,
    logger: createLogger("worker", { level: "silent" }),
  });
  // A path appears soon after its registration.
  await vi.waitFor(() => call("ready?"), { timeout: 20_000, interval: 100 });
});

afterAll(async () => {
  client.close();
  runs.close();
  await worker.stop();
  await coordinator.stop();
});

interface Answer {
  words: number;
  runId: string;
}

/** Calls Score as a generated stub would. */
function call(text: string, headers: Record<string, string> = {}): Promise<Answer> {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  return new Promise((resolve, reject) => {
    let runId = "";
    const made = client.makeUnaryRequest(
      score.path,
      (value: { text: string }) => score.requestSerialize(value),
      (bytes: Buffer) => score.responseDeserialize(bytes) as { words: number },
      { text },
      metadata,
      { deadline: Date.now() + 30_000 },
      (error: ServiceError | null, response) => (error ? reject(error) : resolve({ words: response!.words, runId })),
    );
    made.on("metadata", (initial) => {
      runId = initial.get(runIdKey)[0]?.toString() ?? "";
    });
  });
}

describe("a registered contract as a gRPC method", () => {
  it("answers with the result of a durable run, retries included", async () => {
    const { words, runId } = await call("a b c");
    expect(words).toBe(3);
    const shown = await unaryCall(runs, runs.getRun, { namespace: "default", runId, omitPayloads: false });
    expect(shown.run).toMatchObject({
      method: "acme.pages.v1.PageActions/Score",
      status: RunStatus.RUN_STATUS_SUCCEEDED,
    });
    expect((await call("flaky")).words).toBe(1);
  });

  it("is one run for one idempotency key", async () => {
    const before = calls;
    const headers = { "taskmesh-idempotency-key": "the same" };
    const [first, second] = await Promise.all([call("x y", headers), call("x y", headers)]);
    expect(second).toEqual(first);
    expect((await call("x y", headers)).runId).toBe(first.runId);
    expect(calls).toBe(before + 1);
    await expect(call("other", headers)).rejects.toMatchObject({ code: status.ALREADY_EXISTS });
  });

  it("says what a failed run said, typed", async () => {
    const { fromServiceError } = await import("@taskmesh/runtime");
    const error = fromServiceError(await call("refuse").catch((thrown) => thrown));
    expect(error).toMatchObject({ code: status.ABORTED, reason: "RUN_FAILED", metadata: { failure: "TOO_BORING" } });
    expect(error.detail("taskmesh.v1.RunFailed", RunFailed)?.failure).toMatchObject({
      reason: "TOO_BORING",
      message: "nothing to see",
    });
  });

  it("refuses input that breaks the contract, bytes that are no message, and strangers' namespaces", async () => {
    await expect(call("x".repeat(3), { "taskmesh-namespace": "nowhere" })).rejects.toMatchObject({
      code: status.NOT_FOUND,
    });
    const garbage = new Promise((_, reject) =>
      client.makeUnaryRequest(
        score.path,
        (b: Buffer) => b,
        (b: Buffer) => b,
        Buffer.from([0x0a, 0xff]),
        (error) => reject(error),
      ),
    );
    await expect(garbage).rejects.toMatchObject({ code: status.INVALID_ARGUMENT });
    const unknown = new Promise((_, reject) =>
      client.makeUnaryRequest(
        "/acme.pages.v1.PageActions/Nope",
        (b: Buffer) => b,
        (b: Buffer) => b,
        Buffer.alloc(0),
        (error) => reject(error),
      ),
    );
    await expect(unknown).rejects.toMatchObject({ code: status.UNIMPLEMENTED });
  });

  it("carries messages that travel by reference inside the mesh", async () => {
    const data = Buffer.alloc(3_000_000, 7);
    const answer = await new Promise<{ data: Buffer }>((resolve, reject) =>
      client.makeUnaryRequest(
        echo.path,
        (value: { data: Buffer }) => echo.requestSerialize(value),
        (bytes: Buffer) => echo.responseDeserialize(bytes) as { data: Buffer },
        { data },
        (error, response) => (error ? reject(error) : resolve(response!)),
      ),
    );
    expect(Buffer.compare(Buffer.from(answer.data), data)).toBe(0);
  });

  it("can be called by buf curl, which knows it from reflection alone", async () => {
    const url = `http://${formatAddress(coordinator.listener.address)}/acme.pages.v1.PageActions/Score`;
    const buf = join(import.meta.dirname, "../../node_modules/.bin/buf");
    const args = ["curl", "--protocol=grpc", "--http2-prior-knowledge", "-d", '{"text":"one two"}', url];
    const { stdout } = await promisify(execFile)(buf, args);
    expect(JSON.parse(stdout)).toEqual({ words: 2 });
  });
});
