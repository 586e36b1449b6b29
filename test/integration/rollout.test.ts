/**
 * New revisions of a contract are brought in: a canary gets its share of the starts while old and new serve side by side, and inputs of runs that
 * are under way are made such as the newer workers know.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { credentials } from "@grpc/grpc-js";
import { defineAction, type InputUpcaster, startWorker, type Worker } from "@taskmesh/action-sdk";
import { type Coordinator, createCoordinator, openPglite } from "@taskmesh/coordinator";
import type { Gateway } from "@taskmesh/gateway";
import { type Payload, PayloadServiceClient } from "@taskmesh/proto";
import { coordinatorConfig, createLogger, formatAddress, MemoryBus } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type CompiledService, compileService } from "../fixtures/dynamic-actions.js";
import { waitFor } from "../fixtures/process.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

const method = "shop.v1.ShopActions/Price";
const revision = (messages: string): CompiledService =>
  compileService(
    "shop/v1/shop.proto",
    `syntax = "proto3"; package shop.v1; import "buf/validate/validate.proto"; import "taskmesh/v1/options.proto";
     service ShopActions { rpc Price(PriceRequest) returns (PriceResponse) { option (taskmesh.v1.action) = { exclusive: true }; } }
     message PriceResponse { double total = 1; string by = 2; string saw = 3; }
     ${messages}`,
  );
const first = revision(
  "message PriceRequest { string id = 1; Item item = 2; } message Item { string name = 1; double weight = 2; }",
);
/** Takes whatever the first takes. */
const second = revision(
  "message PriceRequest { string id = 1; Item item = 2; string note = 3; } message Item { string name = 1; double weight = 2; }",
);
/** Wants a currency, and grams in place of kilograms. */
const third = revision(
  `message PriceRequest { string id = 1; Item item = 2; string currency = 3 [(buf.validate.field).string.len = 3]; }
   message Item { string name = 1; int64 grams = 3; }`,
);

let coordinator: Coordinator;
let gateway: Gateway;
const workers = new Set<Worker>();

/** Bytes of a payload above which it is held by reference. */
const inlineMax = 128 * 1024;

/** A worker that says which revision it is, and what it was given; `hold`: it waits before it answers. */
async function serve(
  service: CompiledService,
  by: string,
  {
    hold,
    upcasters = [],
    log = [],
  }: { hold?: Promise<void>; upcasters?: readonly InputUpcaster[]; log?: string[] } = {},
): Promise<Worker> {
  const handler = async (input: { currency?: string; item?: { name: string; grams?: bigint; weight?: number } }) => {
    await hold;
    const { currency = "", item } = input;
    const name = item?.name ?? "";
    return {
      total: 1,
      by,
      saw: `${name.length > inlineMax ? name.length : name} ${String(item?.grams ?? item?.weight ?? "")} ${currency}`.trim(),
    };
  };
  const worker = await startWorker({
    descriptors: service.descriptors,
    actions: [defineAction(service.entry(method), handler as never, { upcasters })],
    address: formatAddress(coordinator.listener.address),
    carrier: coordinator.carrier,
    handleSignals: false,
    quiet: true,
    logger: createLogger("worker", { level: "warn", write: (line: string) => void log.push(line) }),
  });
  workers.add(worker);
  return worker;
}

async function leave(worker: Worker): Promise<void> {
  workers.delete(worker);
  await worker.stop();
}

const start = async (callable: string, input: unknown): Promise<string> => {
  const { json, status } = await ask(gateway, "/api/v1/runs", { body: { method: callable, input } });
  expect(status, JSON.stringify(json)).toBeLessThan(300);
  return json.runId as string;
};
const finish = async (runId: string): Promise<{ by: string; saw: string }> => {
  let status = "RUN_STATUS_RUNNING";
  for (let look = 0; look < 4 && status === "RUN_STATUS_RUNNING"; look++)
    status = (await ask(gateway, `/api/v1/runs/${runId}/result?wait=30s`)).json.status as string;
  expect(status).toBe("RUN_STATUS_SUCCEEDED");
  return (await ask(gateway, `/api/v1/runs/${runId}`)).json.output;
};
/** How many of so many runs went to each revision. */
async function countsOf(runs: number, callable = method): Promise<Record<string, number>> {
  const input = callable === method ? { id: "a", item: { name: "x", weight: 2 } } : { id: "a" };
  const ids = await Promise.all(Array.from({ length: runs }, () => start(callable, input)));
  const counts: Record<string, number> = {};
  for (const { by } of await Promise.all(ids.map(finish))) counts[by] = (counts[by] ?? 0) + 1;
  return counts;
}
const fingerprints = async (): Promise<string[]> =>
  (await ask(gateway, `/api/v1/actions/${method}`)).json.revisions.map((one: { contract: string }) => one.contract);
const put = (path: string, body: unknown) => ask(gateway, path, { method: "PUT", body });
const canary = async (share: number, contract = "") => {
  const { status, json } = await put("/api/v1/contracts/canaries", { method, contract, share, reason: `try ${share}` });
  expect(status, JSON.stringify(json)).toBe(200);
  return json.canary;
};

const main = join(import.meta.dirname, "..", "..", "cli", "src", "main.ts");
function taskmesh(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const words = ["--import", "tsx", "--conditions=@taskmesh/source", main, "--url", gateway.address, ...args];
  const child = spawn(process.execPath, words);
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
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
}, 120_000);
afterEach(async () => {
  await Promise.all([...workers].map(leave));
});
afterAll(async () => {
  await gateway?.stop();
  await coordinator?.stop();
});

const chain = `
contract: { name: shop.v1.Shop/Bill, input: { id: string }, output: { by: string } }
steps:
  - { id: price, call: ${method}, input: { id: input.id } }
output: { by: steps.price.output.by }
`;

describe("a canary", { timeout: 300_000 }, () => {
  it("gets its share of runs and of chains, is changed while both serve, and is rolled back to nothing", async () => {
    await serve(first, "first");
    await ask(gateway, "/api/v1/chains", { body: chain, headers: { "content-type": "application/yaml" } });
    expect(await canary(20)).toMatchObject({ share: 20, afterRevision: 1 });
    const newer = await serve(second, "second");
    await waitFor(
      "the canary to be seen",
      async () => {
        const { json } = await ask(gateway, `/api/v1/contracts/canaries?method=${method}`);
        return json.canaries[0]?.contracts?.length === 1 && json.canaries[0].liveSlots > 0;
      },
      60_000,
    );
    // Attempts that are given out again count too, so a slow machine may shift one or the other (routes.test.ts counts exactly).
    const few = await countsOf(50);
    expect(few.first).toBeGreaterThan(25);
    expect(few.second).toBeGreaterThan(0);
    const steps = await countsOf(20, "shop.v1.Shop/Bill");
    expect(steps.first).toBeGreaterThan(steps.second ?? 0);
    expect(steps.second).toBeGreaterThan(0);
    // The same revisions, another share.
    expect(await canary(90)).toMatchObject({ share: 90, afterRevision: 1 });
    const many = await countsOf(20);
    expect(many.second).toBeGreaterThan(many.first ?? 0);
    expect(await canary(0)).toMatchObject({ share: 0 });
    expect(await countsOf(20)).toEqual({ first: 20 });
    // What is saved or started now is pinned to the older revision too.
    const [old] = await fingerprints();
    expect((await coordinator.registry.plans.current(1, method))?.contract).toBe(old);
    const { json } = await ask(gateway, `/api/v1/contracts/canaries?method=${method}`);
    expect(json.history.map((one: { share?: number }) => one.share ?? 0)).toEqual([0, 90, 20]);
    expect(json.history[1]).toMatchObject({ reason: "try 90" });
    await leave(newer);
  });

  it("that is ended is like any other revision, and runs under way stay with what they are pinned to", async () => {
    let release = (): void => {};
    const hold = new Promise<void>((resolve) => {
      release = resolve;
    });
    await serve(first, "first", { hold });
    // With the canary rolled back, what is started now is pinned to the first revision.
    const pinned = await start(method, { id: "a" });
    await serve(second, "second");
    const shown = await taskmesh("contracts", "canary", method, "--share", "10%", "--reason", "by hand");
    expect(shown.stdout).toContain("10%");
    const cleared = await taskmesh("contracts", "canary", method, "--clear");
    expect([cleared.code, cleared.stderr]).toEqual([0, expect.stringContaining("no canary")]);
    await waitFor(
      "the newest revision to be preferred",
      async () => {
        const [, newest] = await fingerprints();
        return (await coordinator.registry.plans.current(1, method))?.contract === newest;
      },
      60_000,
    );
    expect(await countsOf(10)).toEqual({ second: 10 });
    release();
    expect(await finish(pinned)).toMatchObject({ by: "first" });
  });

  it("refuses what is no share, no action and no fingerprint", async () => {
    const refused = async (body: unknown) => (await put("/api/v1/contracts/canaries", body)).json;
    expect(await refused({ method, share: 101 })).toMatchObject({ reason: "ARGUMENT_INVALID" });
    expect(await refused({ method, share: 1, contract: "abc" })).toMatchObject({ reason: "ARGUMENT_INVALID" });
    expect(await refused({ method: "shop.v1.ShopActions/Prize", share: 1 })).toMatchObject({
      reason: "METHOD_NOT_FOUND",
    });
    expect(await refused({ method: "Price", share: 1 })).toMatchObject({ reason: "ARGUMENT_INVALID" });
  });
});

/** Starts a run of the first revision, whatever is preferred now. */
async function begin(name: string): Promise<string> {
  const [contract] = await fingerprints();
  const plan = await coordinator.registry.plans.pinned(1, method, 0, contract!);
  const bytes = first.entry(method).requestSerialize({ id: "a", item: { name, weight: 0.25 } });
  const held = bytes.length > inlineMax ? await stored(bytes) : { sizeBytes: bytes.length, bytes };
  const input = { contract: contract!, sha256: new Uint8Array(32), ...held };
  const command = { namespaceId: 1, namespace: "default", plan, input, labels: {}, priority: 0 };
  return (await coordinator.engine.intake.startRun(command)).runId;
}

/** Bytes in the payload store. */
async function stored(bytes: Buffer): Promise<{ sizeBytes: number; sha256: Uint8Array; reference: string }> {
  const client = new PayloadServiceClient(formatAddress(coordinator.listener.address), credentials.createInsecure());
  const payload = await new Promise<Payload>((resolve, reject) => {
    const call = client.putPayload((error, answer) => (error ? reject(error) : resolve(answer.payload!)));
    call.end({ namespace: "default", chunk: bytes });
  });
  client.close();
  expect(payload.data?.$case).toBe("reference");
  return { sizeBytes: bytes.length, sha256: payload.sha256, reference: String(payload.data!.value) };
}

describe("an upcaster", { timeout: 300_000 }, () => {
  const input = { currency: { cel: "'EUR'" }, "item.grams": { cel: "int(input.item.weight * 1000.0)" } };
  const declare = async (more: object = {}, fields: object = input) => {
    const all = await fingerprints();
    const upcaster = { method, fromContract: all[0], toContract: all[2], input: fields };
    return ask(gateway, "/api/v1/contracts/upcasters", { body: { upcaster, ...more } });
  };

  it("is tried with the live runs, and lets newer workers take what is pinned to the older revision", async () => {
    // Pinned to the first revision, and nobody is there for it.
    const chained = await start("shop.v1.Shop/Bill", { id: "chained" });
    const newer = await serve(third, "third");
    await waitFor("the third revision", async () => (await fingerprints()).length === 3, 60_000);
    // Without a currency the newer rules are broken: the report says by which run.
    const missing = await declare({ dryRun: true }, { "item.grams": input["item.grams"] });
    expect(missing.json).toMatchObject({ failed: 1, reports: [{ runId: chained, stepId: "price" }] });
    expect(missing.json.reports[0].message).toContain("currency");
    expect(missing.json.warnings).toEqual([]);
    const refused = await declare({}, { "item.grams": input["item.grams"] });
    expect(refused.json.stored ?? false).toBe(false);
    const declared = await declare();
    expect(declared.json, JSON.stringify(declared.json)).toMatchObject({ stored: true, succeeded: 1 });
    expect(declared.json.failed ?? 0).toBe(0);
    expect(await finish(chained)).toMatchObject({ by: "third" });
    const { json } = await ask(gateway, `/api/v1/contracts/upcasters?method=${method}`);
    expect(json.upcasters).toMatchObject([{ method, input: { currency: { cel: "'EUR'" } } }]);
    await leave(newer);
  });

  it("makes the message that the worker sees, also where it claims each attempt", async () => {
    const all = await fingerprints();
    const worker = await serve(third, "third");
    await waitFor(
      "the upcaster to be in force",
      () => {
        const target = { namespaceId: 1, taskQueue: "shop.v1.ShopActions", method, contract: all[0]! };
        return coordinator.registry.catalogue.laneFor(target)?.upcasts?.has(`${method}@${all[0]}`) === true;
      },
      60_000,
    );
    expect(await finish(await begin("feather"))).toMatchObject({ by: "third", saw: "feather 250 EUR" });
    const large = "x".repeat(100_000);
    expect((await finish(await begin(large))).saw).toBe(`${large} 250 EUR`);
    await leave(worker);
    // Held by reference, before and after: tried as such, and sent as such.
    const huge = await begin("x".repeat(300_000));
    expect((await declare({ dryRun: true })).json).toMatchObject({ succeeded: 1 });
    const again = await serve(third, "third");
    expect((await finish(huge)).saw).toBe("300000 250 EUR");
    await leave(again);
  });

  it("is checked from the older type to the newer, and taken back", async () => {
    const problems = async (fields: object) => (await declare({ dryRun: true }, fields)).json;
    expect(await problems({ currency: { cel: "input.item.weight" } })).toMatchObject({
      reason: "CHAIN_INVALID",
      detail: expect.stringContaining("currency"),
    });
    expect(JSON.stringify(await problems({ currency: { cel: "input.curency" } }))).toContain("curency");
    expect(JSON.stringify(await problems({ "item.grms": { cel: "1" } }))).toContain("item.grms");
    expect(JSON.stringify(await problems({ currency: { cel: "run.id" } }))).toContain("run is not part of it");
    const all = await fingerprints();
    const deleted = await taskmesh("contracts", "upcast", method, all[0]!, all[2]!, "--delete");
    expect([deleted.code, deleted.stdout]).toEqual([0, expect.stringContaining("deleted")]);
    const dry = await taskmesh("contracts", "upcast", method, all[0]!, all[2]!, "--set", "currency='EUR'", "--dry-run");
    expect(dry.stdout).toContain("0 can't");
  });
});

describe("an upcaster that a worker declares", { timeout: 300_000 }, () => {
  const grams = "int(input.item.weight * 1000.0)";
  const declared = async () =>
    (await ask(gateway, `/api/v1/contracts/upcasters?method=${method}`)).json.upcasters ?? [];
  const upcaster = async (input: Record<string, string>): Promise<{ upcasters: InputUpcaster[]; log: string[] }> => ({
    upcasters: [{ from: (await fingerprints())[0]!, input, reason: "moved to currencies" }],
    log: [],
  });

  it("is refused as an operator's is, before anything is registered", async () => {
    await expect(serve(third, "third", await upcaster({ currency: "input.curency" }))).rejects.toMatchObject({
      reason: "CHAIN_INVALID",
      message: expect.stringContaining("curency"),
    });
    const own = (await fingerprints())[2]!;
    await expect(serve(third, "third", { upcasters: [{ from: own, input: {} }] })).rejects.toThrow(
      "upcasters[0].from_contract: must be another revision",
    );
    await expect(serve(third, "third", { upcasters: [{ from: "4f5c", input: {} }] })).rejects.toThrow("no fingerprint");
    expect(await declared()).toEqual([]);
  });

  it("is tried with the live runs, in force if none fails, and declared once however many workers bring it", async () => {
    const run = await begin("anvil");
    const failing = await upcaster({ "item.grams": grams });
    const blocked = await serve(third, "third", failing);
    expect(failing.log.join()).toMatch(new RegExp(`is not in force: 1 steps.*${run}.*currency`));
    expect(await declared()).toEqual([]);
    await leave(blocked);
    const right = await upcaster({ currency: "'USD'", "item.grams": grams });
    const worker = await serve(third, "third", right);
    expect(await finish(run)).toMatchObject({ by: "third", saw: "anvil 250 USD" });
    const [one] = await declared();
    expect(one).toMatchObject({ byWorker: true, reason: "moved to currencies", input: { currency: { cel: "'USD'" } } });
    await serve(third, "third", right);
    expect(await declared()).toEqual([one]);
    expect(right.log).toEqual([]);
    await leave(worker);
  });

  it("leaves what an operator declared as it is, and says where it has nothing to do", async () => {
    const all = await fingerprints();
    const fields = { currency: { cel: "'CHF'" } };
    const spec = { method, fromContract: all[0], toContract: all[2], input: fields };
    const { json } = await ask(gateway, "/api/v1/contracts/upcasters", { body: { upcaster: spec } });
    expect(json.stored).toBe(true);
    const later = await upcaster({ currency: "'USD'", "item.grams": grams });
    await serve(third, "third", later);
    expect(later.log.join()).toContain("an operator declared another one, which stays");
    expect(await declared()).toMatchObject([{ input: fields }]);
    const unknown = { upcasters: [{ from: "0".repeat(64), input: { currency: "'USD'" } }], log: [] as string[] };
    await serve(third, "third", unknown);
    expect(unknown.log.join()).toContain("the namespace never had that revision");
  });
});
