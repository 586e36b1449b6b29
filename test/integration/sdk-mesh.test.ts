/** The action SDK against a real coordinator: workers by relay, in this process or in one of their own, with every way to go wrong. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type AnyAction, defineAction, startWorker, type Worker, type WorkerOptions } from "@taskmesh/action-sdk";
import { createCoordinator, openPglite } from "@taskmesh/coordinator";
import {
  ChainServiceClient,
  ChainSpec,
  EventKind,
  type Failure,
  type GetResultResponse,
  type GetRunResponse,
  RegistryServiceClient,
  RunServiceClient,
  RunStatus,
  StartRunRequest,
} from "@taskmesh/proto";
import {
  type Address,
  coordinatorConfig,
  createClient,
  createLogger,
  formatAddress,
  MemoryBus,
  setLogLevel,
  unaryCall,
} from "@taskmesh/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { FaultProxy } from "../fixtures/fault-proxy.js";
import { PageActionsService, pageDescriptors } from "../fixtures/page-actions.js";

const method = "acme.pages.v1.PageActions/Score";
const chain = "acme.pages.v1.Chains/Timed";
const bound = { timeout: 40_000, interval: 50 };

let stop: () => Promise<void>;
let address: Address;
let runs: RunServiceClient;
let registry: RegistryServiceClient;
let workers: Worker[] = [];
let children: ChildProcess[] = [];

beforeAll(async () => {
  setLogLevel("silent");
  const env = { TASKMESH_GRPC_ADDRESS: "127.0.0.1:0", TASKMESH_METRICS_ADDRESS: "off" };
  const bus = new MemoryBus({ ackWaitMs: 3_000 });
  const coordinator = createCoordinator(coordinatorConfig(env, { embedded: true }), {
    database: await openPglite(),
    carrier: (id) => bus.carrier(id),
    exclusive: true,
    intervals: {
      beatMs: 200,
      sessionTimeoutMs: 2_000,
      lapseScanMs: 200,
      graceMs: 500,
      unlistedMs: 1_000,
      bindingScanMs: 300,
      epochPollMs: 200,
      flushMs: 100,
      orphanScanMs: 1_000,
    },
  });
  await coordinator.start();
  address = coordinator.listener.address;
  runs = createClient(RunServiceClient, { addresses: [address] });
  registry = createClient(RegistryServiceClient, { addresses: [address] });
  stop = () => coordinator.stop();
});

afterEach(async () => {
  await Promise.all(workers.map((worker) => worker.stop()));
  for (const child of children) child.kill("SIGKILL");
  workers = [];
  children = [];
});

afterAll(async () => {
  runs.close();
  registry.close();
  await stop();
});

async function serve(actions: readonly AnyAction[], options: Partial<WorkerOptions> = {}): Promise<Worker> {
  const worker = await startWorker({
    descriptors: pageDescriptors,
    actions,
    address: formatAddress(address),
    transports: ["relay"],
    handleSignals: false,
    quiet: true,
    drainTimeoutMs: 500,
    logger: createLogger("worker", { level: "silent" }),
    ...options,
  });
  workers.push(worker);
  return worker;
}

interface Child {
  process: ChildProcess;
  output(): string;
  exit: Promise<number | null>;
  gate: string;
}

/** A worker in a process of its own, registered. */
async function spawnWorker(): Promise<Child> {
  const gate = join(mkdtempSync(join(tmpdir(), "sdk-mesh-")), "open");
  const main = join(import.meta.dirname, "../fixtures/sdk-worker-main.ts");
  const child = spawn(process.execPath, ["--import", "tsx", "--conditions=@taskmesh/source", main], {
    env: { ...process.env, TASKMESH_ADDRESS: formatAddress(address), TASKMESH_SLOTS: "3", TEST_GATE: gate },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const exit = new Promise<number | null>((resolve) => child.once("exit", resolve));
  await vi.waitFor(() => expect(output).toContain(`registered ${method}, 3 slots\n`), bound);
  return { process: child, output: () => output, exit, gate };
}

async function start(text: string, callable = method): Promise<string> {
  const input = { $case: "json" as const, value: JSON.stringify({ text }) };
  const request = StartRunRequest.fromPartial({ namespace: "default", method: callable, input });
  return (await unaryCall(runs, runs.startRun, request)).runId;
}

async function resultOf(runId: string): Promise<GetResultResponse> {
  return vi.waitFor(async () => {
    const wait = { seconds: 20n, nanos: 0 };
    const result = await unaryCall(runs, runs.getResult, { namespace: "default", runId, wait }, { deadlineMs: 40_000 });
    if (result.status === RunStatus.RUN_STATUS_RUNNING) throw new Error("still running");
    return result;
  }, bound);
}

const show = (runId: string): Promise<GetRunResponse> =>
  unaryCall(runs, runs.getRun, { namespace: "default", runId, omitPayloads: false });

/** What an attempt failed with: the run's own failure may be one that names it as its cause. */
function rootOf(failure: Failure | undefined): Failure | undefined {
  return failure?.cause ? rootOf(failure.cause) : failure;
}

function wordsOf(result: GetResultResponse): number | undefined {
  const data = result.output?.data;
  return data?.$case === "inline" ? PageActionsService.score.responseDeserialize(data.value).words : undefined;
}

/** How many results were recorded for a run's steps: exactly one each is promised. */
async function successes(runId: string): Promise<number> {
  const kinds: EventKind[] = [];
  await new Promise<void>((resolve, reject) => {
    const stream = runs.watchRun({ namespace: "default", runId, afterSeq: 0n });
    stream.on("data", ({ event }: { event?: { kind: EventKind } }) => event && kinds.push(event.kind));
    stream.on("error", reject);
    stream.on("end", resolve);
  });
  return kinds.filter((kind) => kind === EventKind.EVENT_KIND_STEP_SUCCEEDED).length;
}

const count = defineAction(PageActionsService.score, async ({ text }) => ({ words: text.split(/\s+/).length }));

describe("a handler", () => {
  it("that throws is retried as its failure allows, and its reason is recorded", async () => {
    let attempts = 0;
    const flaky = defineAction(PageActionsService.score, async ({ text }, { attempt }) => {
      attempts = attempt;
      if (text === "always" || attempt < 2) throw new Error("boom");
      return { words: 5 };
    });
    await serve([flaky]);
    expect(wordsOf(await resultOf(await start("once")))).toBe(5);
    expect(attempts).toBe(2);
    const failed = await resultOf(await start("always"));
    expect(failed.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(rootOf(failed.failure)).toMatchObject({ reason: "HANDLER_ERROR", message: "boom" });
  });

  it("whose output breaks the contract fails the run at the first attempt", async () => {
    const wrong = defineAction(PageActionsService.score, async () => ({ words: 0.5 }));
    await serve([wrong]);
    const runId = await start("a");
    const result = await resultOf(runId);
    expect(rootOf(result.failure)).toMatchObject({ reason: "OUTPUT_INVALID", retryable: false });
    expect((await show(runId)).steps[0]?.attempt).toBe(1);
  });

  it("that never returns is timed out, and its run ends", async () => {
    const hang = defineAction(PageActionsService.score, async ({ text }): Promise<{ words: number }> => {
      if (text === "hang") await new Promise(() => {});
      return { words: 1 };
    });
    await serve([hang]);
    await putTimedChain();
    const result = await resultOf(await start("hang", chain));
    expect(result.status).toBe(RunStatus.RUN_STATUS_FAILED);
    expect(rootOf(result.failure)?.reason).toBe("START_TO_CLOSE_TIMEOUT");
    expect((await resultOf(await start("fine", chain))).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });

  it("that asks for more time has it, also with the mesh: its limit and the grace behind that pass, and its one attempt succeeds", async () => {
    const slow = defineAction(PageActionsService.score, async (_input, { attempt, extendTimeout, signal }) => {
      extendTimeout(60_000);
      await new Promise((resolve) => setTimeout(resolve, 6_800));
      signal.throwIfAborted();
      return { words: attempt };
    });
    await serve([slow]);
    await putTimedChain();
    const result = await resultOf(await start("slow", chain));
    expect([result.status, wordsOf(result)]).toEqual([RunStatus.RUN_STATUS_SUCCEEDED, 1]);
  });

  it("that exits its process loses the attempt, not the run", async () => {
    const child = await spawnWorker();
    const runId = await start("exit");
    expect(await child.exit).toBe(7);
    await serve([count]);
    const result = await resultOf(runId);
    expect(wordsOf(result)).toBe(1);
    expect((await show(runId)).steps[0]?.attempt).toBeGreaterThan(1);
    expect(await successes(runId)).toBe(1);
  });

  it("that blocks the event loop past the session timeout is given to another worker, and one result is recorded", async () => {
    const child = await spawnWorker();
    const runId = await start("block 6000");
    await vi.waitFor(() => expect(child.output()).toContain("running block"), bound);
    await serve([count]);
    expect(wordsOf(await resultOf(runId))).toBe(2);
    expect(await successes(runId)).toBe(1);
    // The blocked worker finds its way back and serves again.
    await Promise.all(workers.map((worker) => worker.stop()));
    expect(wordsOf(await resultOf(await start("a b c")))).toBe(3);
    expect(child.process.exitCode).toBeNull();
    expect(child.output()).toContain("the event loop was blocked");
  });

  it("that forgets a promise ends neither its worker nor its attempt", async () => {
    const child = await spawnWorker();
    expect(wordsOf(await resultOf(await start("forget it")))).toBe(2);
    await vi.waitFor(() => expect(child.output()).toContain("nothing handled it"), bound);
    expect(child.output()).toContain("a forgotten promise");
    expect(wordsOf(await resultOf(await start("a b c")))).toBe(3);
    expect(child.process.exitCode).toBeNull();
  });
});

describe("a worker process", () => {
  it("ends with code 0 on SIGTERM after what it runs, and burns no attempt", async () => {
    const child = await spawnWorker();
    const held = await start("hold on");
    await vi.waitFor(() => expect(child.output()).toContain("running hold"), bound);
    child.process.kill("SIGTERM");
    await vi.waitFor(() => expect(child.output()).toContain('"msg":"draining"'), bound);
    const waiting = await start("a b c");
    writeFileSync(child.gate, "");
    expect(await child.exit).toBe(0);
    expect(wordsOf(await resultOf(held))).toBe(2);
    expect((await show(held)).steps[0]?.attempt).toBe(1);
    await serve([count]);
    expect(wordsOf(await resultOf(waiting))).toBe(3);
    expect((await show(waiting)).steps[0]?.attempt).toBe(1);
    expect(child.output().match(/running/g)).toHaveLength(1);
  });

  it("ends at once on a second signal, and its attempt goes to another worker", async () => {
    const child = await spawnWorker();
    const held = await start("hold on");
    await vi.waitFor(() => expect(child.output()).toContain("running hold"), bound);
    child.process.kill("SIGINT");
    await vi.waitFor(() => expect(child.output()).toContain('"msg":"draining"'), bound);
    child.process.kill("SIGINT");
    expect(await child.exit).toBe(130);
    await serve([count]);
    expect(wordsOf(await resultOf(held))).toBe(2);
    expect(await successes(held)).toBe(1);
  });

  it("leaves the live list when it has drained", async () => {
    const worker = await serve([count]);
    const live = async (): Promise<string[]> => {
      const { workers: listed } = await unaryCall(registry, registry.listWorkers, { namespace: "default" });
      return listed.map((one) => one.sessionId);
    };
    expect(await live()).toContain(worker.sessionId);
    const { sessionId } = worker;
    await worker.stop();
    await vi.waitFor(async () => expect(await live()).not.toContain(sessionId), bound);
  });
});

describe("a broken connection", () => {
  it("costs no attempt: the session is resumed and the result arrives", async () => {
    const proxy = await FaultProxy.open(address);
    let open: () => void = () => {};
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    const attempts: number[] = [];
    const action = defineAction(PageActionsService.score, async (_input, { attempt }) => {
      attempts.push(attempt);
      await opened;
      return { words: 4 };
    });
    try {
      const worker = await serve([action], { address: `127.0.0.1:${proxy.port}` });
      const { sessionId } = worker;
      const runId = await start("a");
      await vi.waitFor(() => expect(attempts).toEqual([1]), bound);
      const before = proxy.accepted;
      proxy.cut();
      await vi.waitFor(() => expect(proxy.accepted).toBeGreaterThan(before), bound);
      await vi.waitFor(() => expect(worker.address).toBeDefined(), bound);
      expect(worker.sessionId).toBe(sessionId);
      open();
      expect(wordsOf(await resultOf(runId))).toBe(4);
      expect(attempts).toEqual([1]);
      expect((await show(runId)).steps[0]?.attempt).toBe(1);
      await worker.stop();
    } finally {
      await proxy.close();
    }
  });
});

async function putTimedChain(): Promise<void> {
  const chains = createClient(ChainServiceClient, { addresses: [address] });
  const spec = ChainSpec.fromPartial({
    contract: { name: chain, input: { text: "string" }, output: { words: "int32" } },
    steps: [
      {
        id: "score",
        call: method,
        input: { text: { kind: { $case: "cel", value: "input.text" } } },
        startToClose: { seconds: 0n, nanos: 300_000_000 },
        retry: { maxAttempts: 1 },
      },
    ],
    output: { words: { kind: { $case: "cel", value: "steps.score.output.words" } } },
  });
  try {
    await unaryCall(chains, chains.putChain, { namespace: "default", spec, requireLiveWorkers: false });
  } finally {
    chains.close();
  }
}
