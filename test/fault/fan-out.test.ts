/** Fan-outs of 1,000 items, whose outputs the next step reads, while every process of the mesh is killed in turn. */
import { BinaryWriter } from "@bufbuild/protobuf/wire";
import { ChainServiceClient, ChainSpec, EventKind, RunStatus, StartRunRequest, StepStatus } from "@taskmesh/proto";
import { createClient, parseChainDocument, sha256, unaryCall } from "@taskmesh/runtime";
import { afterEach, describe, expect, it } from "vitest";
import { allEnded, type Mesh, startMesh } from "../fixtures/mesh.js";
import { waitFor } from "../fixtures/process.js";

const items = 1_000;
const method = "acme.bench.v1.Bench/Sums";
const chain = `
contract:
  name: ${method}
  input: { numbers: repeated int32 }
  output: { counters: repeated int32 }
steps:
  - id: count
    call: acme.bench.v1.BenchActions/Count
    each: { items: input.numbers, max_parallel: 200 }
    input: { counter: each.value, run: each.index }
  - id: last
    call: acme.bench.v1.BenchActions/Count
    when: size(steps.count.output) == ${items}
    input: { counter: size(steps.count.output) }
output:
  counters: steps.count.output.map(one, one.counter)
`;
const runs = 3;
const resumeMs = 20_000;

let mesh: Mesh | undefined;
afterEach(async () => {
  await mesh?.stop();
  mesh = undefined;
});

async function start(on: Mesh): Promise<string[]> {
  const chains = createClient(ChainServiceClient, { addresses: on.addresses });
  try {
    const spec = parseChainDocument(chain).spec ?? ChainSpec.create();
    await unaryCall(chains, chains.putChain, { namespace: "default", spec, requireLiveWorkers: true });
  } finally {
    chains.close();
  }
  const numbers = Array.from({ length: items }, (_, n) => n);
  const input = { $case: "json" as const, value: JSON.stringify({ numbers }) };
  const request = StartRunRequest.fromPartial({ namespace: "default", method, input });
  const started = Array.from({ length: runs }, () => unaryCall(on.runs, on.runs.startRun, request));
  return (await Promise.all(started)).map(({ runId }) => runId);
}

/** Items with a result so far, over all runs. */
async function done(on: Mesh): Promise<number> {
  const kind = EventKind.EVENT_KIND_ITEM_SUCCEEDED;
  const [row] = await on.sql<{ n: number }[]>`select count(*)::int as n from events where kind = ${kind}`;
  return row?.n ?? 0;
}

async function resumes(on: Mesh): Promise<void> {
  const before = await done(on);
  expect(before, "the load was over before the fault").toBeLessThan(runs * items);
  await waitFor("items to end after the fault", async () => (await done(on).catch(() => 0)) > before, resumeMs, 100);
}

/** The chain's output as the wire has it. */
function outputOf(counters: readonly number[]): Uint8Array {
  const writer = new BinaryWriter().uint32(0x0a).fork();
  for (const counter of counters) writer.int32(counter);
  return writer.join().finish();
}

describe("fan-outs of 1,000 items", () => {
  it("lose no item and record none twice when each process is killed in turn", { timeout: 300_000 }, async () => {
    mesh = await startMesh({ coordinators: 2, workers: 2, workerEnv: { DELAY_MS: "300", SLOTS: "20" } });
    const { workers, coordinators, nats, postgres } = mesh;
    const ids = await start(mesh);
    await waitFor("the first items", async () => (await done(mesh!)) > 20, 30_000);
    await workers[0]!.kill();
    await resumes(mesh);
    await workers[0]!.start();
    await coordinators[0]!.kill();
    await resumes(mesh);
    await coordinators[0]!.start();
    await nats.kill();
    await nats.start();
    await resumes(mesh);
    await postgres.kill();
    await postgres.start();
    await resumes(mesh);
    await allEnded(mesh, runs, 200_000);
    const expected = Buffer.from(sha256(outputOf(Array.from({ length: items }, (_, n) => n + 1)))).toString("hex");
    for (const runId of ids) {
      const asked = { namespace: "default", runId, omitPayloads: true };
      const { run, steps } = await unaryCall(mesh.runs, mesh.runs.getRun, asked);
      expect(run?.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
      expect(steps.map(({ status }) => StepStatus[status])).toEqual(["STEP_STATUS_SUCCEEDED", "STEP_STATUS_SUCCEEDED"]);
      const result = await unaryCall(mesh.runs, mesh.runs.getResult, { namespace: "default", runId, wait: undefined });
      // Made off the engine's tick, it may be kept by reference; its hash says as much.
      expect(Buffer.from(result.output?.sha256 ?? "").toString("hex")).toBe(expected);
    }
    const kind = EventKind.EVENT_KIND_ITEM_SUCCEEDED;
    const [row] = await mesh.sql<{ n: number; distinct: number }[]>`
      select count(*)::int as n, count(distinct (run_id, step, item))::int as distinct from events where kind = ${kind}`;
    expect(row).toEqual({ n: runs * items, distinct: runs * items });
  });
});
