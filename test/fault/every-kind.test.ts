/**
 * Every kind of run at once (fan-outs of 1,000 and within fan-outs, joins, races, sub-chains, timers, signals, undos, bulk retries and restarts of broken runs) while coordinators and
 * a worker die by SIGKILL at moments that nobody has chosen. In the end nothing is lost and nothing doubled:
 *
 *   every accepted run has ended as it must, and there is no run that nobody started
 *   every step, item and undo has exactly one recorded result; a race has one winner at least
 *   undos begin after the run's end is decided, the last success first
 *   no execution of a handler shares its lease with another one, and every recorded result has an execution
 *   no timer ended early, no signal was taken twice, no broken run was retried or restarted twice
 */
import { randomUUID } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BulkKind, BulkServiceClient, EventKind, StartBulkOperationRequest } from "@taskmesh/proto";
import { createClient, unaryCall } from "@taskmesh/runtime";
import { expect, it } from "vitest";
import { forEach, untilAnswered } from "../fixtures/careful-calls.js";
import { allEnded, endedRuns, type Mesh, type MeshProcess, startMesh } from "../fixtures/mesh.js";
import {
  itemsPerFanOut,
  itemsPerLevel,
  type MixedRun,
  methodOf,
  mixedRuns,
  runsOf,
  saveMixedChains,
  startMixed,
  stepsWithOneResult,
  wrongResults,
} from "../fixtures/mixed-load.js";
import { waitFor } from "../fixtures/process.js";

const counts = {
  Wide: 1,
  Nested: 6,
  Joins: 25,
  Outer: 12,
  Sleeps: 60,
  Signals: 25,
  Saga: 25,
  Breaks: 120,
  Restarts: 60,
};
const program = "test/fixtures/quick-coordinator.ts";

let mesh: Mesh;

type Random = (below: number) => number;

/** Numbers that a seed gives: the moments of a run that failed can be had again. */
function seeded(seed: number): Random {
  let state = seed;
  return (below) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
    return Math.floor((state / 2_147_483_648) * below);
  };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Kills it at a random moment within `withinMs`, and starts it again at another one. Answers when it serves again. */
async function strike(victim: MeshProcess, random: Random, withinMs = 700): Promise<{ back: Promise<void> }> {
  await pause(random(withinMs));
  await victim.kill();
  await pause(random(400));
  const back = victim.start();
  // Heard where it is waited for.
  back.catch(() => {});
  return { back };
}

/** A fault that meets no load proves nothing. */
async function isUnderLoad(what: string): Promise<void> {
  expect(await endedRuns(mesh), `the load was over before ${what}`).toBeLessThan(runsOf(counts));
}

async function brokenRuns(): Promise<number> {
  const [row] = await mesh.sql<{ n: number }[]>`select count(*)::int as n from broken_runs`;
  return row?.n ?? 0;
}

/** Retries one group of broken runs and restarts another, each asked for twice; one of the two coordinators dies meanwhile. */
async function mendAll(random: Random): Promise<Record<string, number>> {
  const bulk = createClient(BulkServiceClient, { addresses: mesh.addresses });
  const requestOf = (kind: BulkKind, of: string, stepId: string): StartBulkOperationRequest => {
    const filter = { method: methodOf(of), brokenReason: "NOT_YET" };
    return StartBulkOperationRequest.fromPartial({
      namespace: "default",
      operationId: randomUUID(),
      filter,
      kind,
      stepId,
    });
  };
  const requests = [
    requestOf(BulkKind.BULK_KIND_RETRY, "Breaks", ""),
    requestOf(BulkKind.BULK_KIND_RESTART, "Restarts", "gated"),
  ];
  const limit = { deadlineMs: 5_000 };
  const start = () =>
    forEach(requests, (one) => untilAnswered(() => unaryCall(bulk, bulk.startBulkOperation, one, limit)), 2);
  const look = async (operationId: string) => {
    const asked = { namespace: "default", operationId };
    return (await untilAnswered(() => unaryCall(bulk, bulk.getBulkOperation, asked, limit))).operation!;
  };
  try {
    await start();
    const { back } = await strike(mesh.coordinators[random(2)]!, random, 150);
    await start();
    await back;
    const done: Record<string, number> = {};
    for (const { operationId, kind } of requests) {
      const ended = async () => (await look(operationId)).endedAt !== undefined;
      await waitFor("the bulk operation", ended, 60_000, 200);
      const { changed, failed } = await look(operationId);
      done[BulkKind[kind]] = failed > 0 ? -failed : changed;
    }
    return done;
  } finally {
    bulk.close();
  }
}

it("loses and doubles nothing of any kind while processes are killed", { timeout: 300_000 }, async ({
  onTestFinished,
}) => {
  const folder = mkdtempSync(join(tmpdir(), "taskmesh-kinds-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const [gate, ledger] = [join(folder, "gate"), join(folder, "ledger")];
  const seed = Date.now() % 100_000;
  console.log(`seed ${seed}`);
  const random = seeded(seed);
  const workerEnv = { DELAY_MS: "150", SLOTS: "30", LEDGER: ledger };
  mesh = await startMesh({ coordinators: 2, workers: 2, programs: [program, program], workerEnv });
  onTestFinished(() => mesh.stop());
  await saveMixedChains(mesh);
  const [first, second] = mesh.coordinators as [MeshProcess, MeshProcess];
  const runs = mixedRuns(counts, { gate, sleepMs: 12_000 });
  const started = forEach(runs, (run) => startMixed(mesh, run), 40);
  started.catch(() => {});
  await waitFor("the first runs to end", async () => (await endedRuns(mesh)) > 0, 30_000);

  await isUnderLoad("a worker was killed");
  const worker = await strike(mesh.workers[0]!, random);
  await isUnderLoad("the first coordinator was killed");
  await (await strike(first, random)).back;
  await isUnderLoad("the second coordinator was killed");
  await (await strike(second, random)).back;
  const ids = await started;
  await waitFor("the runs to break", async () => (await brokenRuns()) === counts.Breaks + counts.Restarts, 60_000, 100);
  writeFileSync(gate, "");
  const mended = await mendAll(random);
  await worker.back;
  await allEnded(mesh, runsOf(counts), 120_000);

  expect(await attemptsMadeAgain(), "no kill has met an attempt").toBeGreaterThan(0);
  expect(mended).toEqual({ BULK_KIND_RETRY: counts.Breaks, BULK_KIND_RESTART: counts.Restarts });
  expect(await wrongResults(mesh, runs, ids)).toEqual([]);
  expect(await oddHistories(runs, ids)).toEqual({});
  expect(oddExecutions(ledger, await recordedResults())).toEqual([]);
});

interface Result {
  runId: string;
  item: number;
  attempt: number;
}

/** Everything in the histories that there is too little or too much of; nothing: all is right. */
async function oddHistories(runs: readonly MixedRun[], ids: readonly string[]): Promise<Record<string, unknown>> {
  const { sql } = mesh;
  const odd: Record<string, unknown> = {};
  const note = (what: string, found: readonly unknown[]): void => {
    if (found.length > 0) odd[what] = found.slice(0, 5);
  };
  const [total] = await sql<{ n: number }[]>`select count(*)::int as n from runs`;
  if (total?.n !== runsOf(counts) || new Set(ids).size !== runs.length) odd["runs"] = total?.n;

  for (const [kind, steps] of Object.entries(stepsWithOneResult)) {
    note(
      `results of ${kind}`,
      await sql`
        select r.id, s.step, count(e.seq)::int as results from runs r cross join unnest(${[...steps]}::int[]) as s(step)
        left join events e on e.run_id = r.id and e.step = s.step and e.kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}
        where r.method = ${methodOf(kind)} group by r.id, s.step having count(e.seq) <> 1`,
    );
  }
  const items = await sql<{ n: number; distinct: number }[]>`
    select count(*)::int as n, count(distinct (run_id, item))::int as distinct from events
    where kind = ${EventKind.EVENT_KIND_ITEM_SUCCEEDED}`;
  const wanted = counts.Wide * itemsPerFanOut + counts.Nested * itemsPerLevel * (1 + itemsPerLevel);
  if (items[0]?.n !== wanted || items[0].distinct !== wanted) odd["items"] = items[0];
  note(
    "winners of races",
    await sql`
      select r.id, count(e.seq)::int as winners from runs r
      left join events e on e.run_id = r.id and e.step in (3, 4) and e.kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}
      where r.method = ${methodOf("Joins")} group by r.id
      having count(e.seq) < 1 or count(e.seq) <> count(distinct e.step)`,
  );
  const once = async (kind: EventKind, of: string, times: number): Promise<void> =>
    note(
      `${EventKind[kind]} of ${of}`,
      await sql`
        select r.id, count(e.seq)::int as n from runs r left join events e on e.run_id = r.id and e.kind = ${kind}
        where r.method = ${methodOf(of)} group by r.id having count(e.seq) <> ${times}`,
    );
  for (const kind of Object.keys(stepsWithOneResult)) await once(EventKind.EVENT_KIND_RUN_ENDED, kind, 1);
  await once(EventKind.EVENT_KIND_RUN_COMPENSATING, "Saga", 1);
  await once(EventKind.EVENT_KIND_SIGNAL_RECEIVED, "Signals", 2);
  await once(EventKind.EVENT_KIND_RUN_BROKEN, "Breaks", 1);
  await once(EventKind.EVENT_KIND_STEP_RETRIED, "Breaks", 1);
  // Step 3 undoes the first step, step 4 the second one, which goes first.
  note(
    "order of undos",
    await sql`
      select r.id from runs r
      join events c on c.run_id = r.id and c.kind = ${EventKind.EVENT_KIND_RUN_COMPENSATING}
      join events u on u.run_id = r.id and u.step = 3 and u.kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}
      join events v on v.run_id = r.id and v.step = 4 and v.kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}
      where not (c.seq < v.seq and v.seq < u.seq)`,
  );
  const pauses = runs.map(({ pauseMs = 0 }) => pauseMs);
  note(
    "early timers",
    await sql`
      select r.id, e.at - r.accepted_at as after from unnest(${[...ids]}::uuid[], ${pauses}::int[]) as p(id, ms)
      join runs r on r.id = p.id
      join events e on e.run_id = r.id and e.step = 0 and e.kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}
      where p.ms > 0 and e.at < r.accepted_at + p.ms * interval '1 millisecond'`,
  );
  return odd;
}

/** Attempts of which an earlier one did not end, of runs in which nothing fails. */
async function attemptsMadeAgain(): Promise<number> {
  const fail = ["Saga", "Breaks", "Restarts"].map(methodOf);
  const [row] = await mesh.sql<{ n: number }[]>`
    select count(*)::int as n from events e join runs r on r.id = e.run_id
    where e.attempt > 1 and r.method <> all(${fail})`;
  return row?.n ?? 0;
}

/** The attempts whose results are on record, of steps and items that a worker does rather than a chain. */
async function recordedResults(): Promise<Result[]> {
  return mesh.sql<Result[]>`
    select run_id as "runId", item, attempt from events e
    where kind in (${EventKind.EVENT_KIND_STEP_SUCCEEDED}, ${EventKind.EVENT_KIND_ITEM_SUCCEEDED}) and attempt > 0
      and not exists (select from events c where c.run_id = e.run_id and c.step = e.step
        and c.kind = ${EventKind.EVENT_KIND_CHILD_STARTED})`;
}

/** What the ledger of executions has that can't be. */
function oddExecutions(ledger: string, results: readonly Result[]): string[] {
  const lines = readFileSync(ledger, "utf8").trim().split("\n");
  const leases = new Set<string>();
  const executed = new Set<string>();
  const odd: string[] = [];
  for (const line of lines) {
    const [runId, , attempt, lease, item] = line.split(" ") as [string, string, string, string, string];
    if (leases.has(lease)) odd.push(`the lease of ${line} was executed twice`);
    leases.add(lease);
    executed.add(`${runId} ${attempt} ${item}`);
  }
  for (const { runId, item, attempt } of results) {
    if (!executed.has(`${runId} ${attempt} ${item}`)) odd.push(`run ${runId} has a result that nobody made`);
  }
  return odd;
}
