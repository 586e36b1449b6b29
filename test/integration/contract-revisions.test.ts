/**
 * Old and new revisions of one contract at once: what was written with one is read with it for ever, and steps go to workers that can read
 * and write what they are pinned to.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createFileRegistry, fromBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { defineAction, startWorker, type Worker } from "@taskmesh/action-sdk";
import { type Coordinator, createCoordinator, openPglite } from "@taskmesh/coordinator";
import type { Gateway } from "@taskmesh/gateway";
import { RegistryServiceClient, RunServiceClient } from "@taskmesh/proto";
import { coordinatorConfig, createClient, createLogger, formatAddress, MemoryBus, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CompiledService, compileService } from "../fixtures/dynamic-actions.js";
import { waitFor } from "../fixtures/process.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

const method = "shop.v1.ShopActions/Price";
const revision = (request: string, response: string): CompiledService =>
  compileService(
    "shop/v1/shop.proto",
    `syntax = "proto3"; package shop.v1;
     service ShopActions { rpc Price(PriceRequest) returns (PriceResponse); }
     message PriceRequest { ${request} }
     message PriceResponse { ${response} }`,
  );
const first = revision("string id = 1;", "double total = 1; string by = 2;");
/** Breaks the first: another type under the same number. */
const second = revision("string id = 1;", "string total = 1; string by = 2;");
/** Follows the second. */
const third = revision("string id = 1; string currency = 2;", "string total = 1; string by = 2; string currency = 3;");

const chain = `
contract: { name: shop.v1.Shop/Bill, input: { id: string }, output: { value: double, by: string } }
steps:
  - { id: price, call: ${method}, input: { id: input.id } }
output: { value: steps.price.output.total, by: steps.price.output.by }
`;

let coordinator: Coordinator;
let gateway: Gateway;
let runs: RunServiceClient;
let registry: RegistryServiceClient;
const workers = new Set<Worker>();

async function serve(service: CompiledService, by: string, total: unknown): Promise<Worker> {
  const worker = await startWorker({
    descriptors: service.descriptors,
    actions: [defineAction(service.entry(method), async () => ({ total, by, currency: "EUR" }))],
    address: formatAddress(coordinator.listener.address),
    carrier: coordinator.carrier,
    handleSignals: false,
    quiet: true,
    logger: createLogger("worker", { level: "silent" }),
  });
  workers.add(worker);
  return worker;
}

async function leave(worker: Worker): Promise<void> {
  workers.delete(worker);
  await worker.stop();
}

const start = async (callable: string, input: unknown): Promise<string> => {
  const { json } = await ask(gateway, "/api/v1/runs", { body: { method: callable, input } });
  return json.runId as string;
};
const finish = async (runId: string): Promise<void> => {
  const { json } = await ask(gateway, `/api/v1/runs/${runId}/result?wait=20s`);
  expect(json).toMatchObject({ status: "RUN_STATUS_SUCCEEDED" });
};
const show = async (runId: string) => (await ask(gateway, `/api/v1/runs/${runId}`)).json;

const main = join(import.meta.dirname, "..", "..", "cli", "src", "main.ts");
function taskmesh(...args: string[]): Promise<string> {
  const words = ["--import", "tsx", "--conditions=@taskmesh/source", main, "--url", gateway.address, "--json", ...args];
  const child = spawn(process.execPath, words);
  let stdout = "";
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  return new Promise((resolve) => child.once("close", () => resolve(stdout)));
}

beforeAll(async () => {
  const bus = new MemoryBus();
  const env = { TASKMESH_GRPC_ADDRESS: "127.0.0.1:0", TASKMESH_LOG_LEVEL: "silent" };
  coordinator = createCoordinator(coordinatorConfig(env, { embedded: true }), {
    database: await openPglite(),
    carrier: (id) => bus.carrier(id),
    exclusive: true,
    contractGate: "allow",
  });
  await coordinator.start();
  gateway = await startTestGateway([coordinator.listener.address.port]);
  const addresses = [coordinator.listener.address];
  runs = createClient(RunServiceClient, { addresses });
  registry = createClient(RegistryServiceClient, { addresses });
});
afterAll(async () => {
  await Promise.all([...workers].map((worker) => worker.stop()));
  for (const client of [runs, registry]) client?.close();
  await gateway?.stop();
  await coordinator?.stop();
});

/** The output of a run as a gRPC client reads it: by the contract that the payload names. */
async function outputOverGrpc(runId: string): Promise<unknown> {
  const { output } = await unaryCall(runs, runs.getRun, { namespace: "default", runId, omitPayloads: false });
  const stored = await unaryCall(registry, registry.getContract, {
    ...{ namespace: "default", contract: output?.contract ?? "", method: "" },
  });
  const types = createFileRegistry(fromBinary(FileDescriptorSetSchema, stored.descriptorSet));
  const bytes = output?.data?.$case === "inline" ? output.data.value : new Uint8Array();
  return toJson(types.getMessage(stored.outputType)!, fromBinary(types.getMessage(stored.outputType)!, bytes));
}

describe("revisions of one contract", () => {
  const ids: { lone: string; chained: string; later: string } = { lone: "", chained: "", later: "" };

  it("are kept: a run of any age is read with the revision that wrote it, over REST, gRPC and the command line", async () => {
    const old = await serve(first, "first", 1.5);
    const stored = await ask(gateway, "/api/v1/chains", {
      body: chain,
      headers: { "content-type": "application/yaml" },
    });
    expect(stored.status).toBe(201);
    ids.lone = await start(method, { id: "a" });
    ids.chained = await start("shop.v1.Shop/Bill", { id: "b" });
    await Promise.all([finish(ids.lone), finish(ids.chained)]);
    await leave(old);
    await serve(second, "second", "two");
    ids.later = await start(method, { id: "c" });
    await finish(ids.later);

    expect(await show(ids.lone)).toMatchObject({ input: { id: "a" }, output: { total: 1.5, by: "first" } });
    expect(await show(ids.chained)).toMatchObject({
      steps: [{ output: { total: 1.5, by: "first" } }],
      output: { value: 1.5 },
    });
    expect(await show(ids.later)).toMatchObject({ output: { total: "two", by: "second" } });
    expect(await outputOverGrpc(ids.lone)).toEqual({ total: 1.5, by: "first" });
    expect(await outputOverGrpc(ids.later)).toEqual({ total: "two", by: "second" });
    expect(JSON.parse(await taskmesh("runs", "show", ids.lone))).toMatchObject({ output: { total: 1.5 } });
    expect(JSON.parse(await taskmesh("runs", "result", ids.lone))).toMatchObject({ total: 1.5 });
    const described = await ask(gateway, `/api/v1/actions/${method}`);
    expect(described.json.revisions.map((one: { number: number }) => one.number)).toEqual([1, 2]);
    const output = await ask(gateway, `/api/v1/runs/${ids.chained}/steps/price/output`);
    expect(output.json).toMatchObject({ total: 1.5, by: "first" });
    // Each payload names its revision, so that any client can decode it.
    const { run, input, steps } = await unaryCall(runs, runs.getRun, {
      namespace: "default",
      runId: ids.chained,
      omitPayloads: false,
    });
    const pinned = described.json.revisions[0].contract;
    expect([input?.contract, steps[0]?.input?.contract, steps[0]?.output?.contract]).toEqual([
      run?.contract,
      pinned,
      pinned,
    ]);
  });

  it("serve side by side: each step goes to a worker that can read and write what it is pinned to", async () => {
    // The second revision can't give the chain its double: the step waits.
    const waiting = await start("shop.v1.Shop/Bill", { id: "d" });
    await waitFor("the step to be ready", async () => {
      const [step] = (await show(waiting)).steps as { status: string }[];
      return step?.status === "STEP_STATUS_READY";
    });
    // The third follows the second: it takes what is pinned to either, and not to the first.
    const newest = await serve(third, "third", "three");
    const { contract } = (await ask(gateway, `/api/v1/actions/${method}`)).json.action as { contract: string };
    await waitFor("the newest revision to be preferred", async () => {
      const plan = await coordinator.registry.plans.current(1, method);
      return plan?.contract === contract;
    });
    const both = await Promise.all(["e", "f", "g"].map((id) => start(method, { id })));
    await Promise.all(both.map(finish));
    for (const id of both) expect((await show(id)).output.currency).toBe("EUR");
    expect((await show(waiting)).steps[0].status).toBe("STEP_STATUS_READY");
    const old = await serve(first, "first again", 2.5);
    await finish(waiting);
    expect(await show(waiting)).toMatchObject({ output: { value: 2.5, by: "first again" } });
    await Promise.all([leave(newest), leave(old)]);
  });
});
