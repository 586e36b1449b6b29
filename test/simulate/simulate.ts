/** One seed, from beginning to end: trouble for a while, then calm, and then everything must have come out right. */

import { EventKind } from "@taskmesh/proto";
import { isFinal, RunStatus } from "../../coordinator/src/engine/run-state.js";
import { answerAll, happenings, mendAll, signalAll, startRun } from "./happenings.js";
import { decode } from "./kinds.js";
import { Mesh } from "./mesh.js";
import { World } from "./world.js";

export interface Outcome {
  seed: number;
  /** What did not hold; undefined: all did. */
  failure: Error | undefined;
  /** What happened, for a traced seed. */
  trace: readonly string[];
  /** How the runs ended, by status; and what the invariants looked at. */
  counts: Record<string, number>;
}

/** Time in which things go wrong. */
const troubleMsMax = 60_000;
/** Longer than any deadline and every wait for an ack, a lapse or an audit together. */
const calmMsMax = 1_800_000;
/** What is under way when the last run ends is over by then. */
const restMs = 20_000;
const confirmMsMax = 5_000;
/** In a calm mesh every run ends in this time: retries, hanging handlers, acks, lapses and looks of the audit, one after another. */
const settleMs = 400_000;
/** A run whose parent has ended ends in this time: a coordinator lapses and is taken over, and attempts may clean up. */
const letGoMs = 60_000;
/** A run ends this long after its deadline at the latest: a sweeper that died with its claim holds it for 10 s. */
const graceMs = 25_000;

/** Simulates one seed. */
export async function simulate(seed: number, options: { trace?: boolean } = {}): Promise<Outcome> {
  const world = new World(seed, options);
  return world.enter(async () => {
    const mesh = new Mesh(world);
    let failure: Error | undefined;
    const forgotten = (error: unknown): void => {
      mesh.violation ??= error;
    };
    process.on("unhandledRejection", forgotten);
    try {
      await play(mesh);
    } catch (error) {
      failure = error instanceof Error ? error : new Error(String(error));
    } finally {
      process.off("unhandledRejection", forgotten);
    }
    return { seed, failure, trace: world.trace, counts: countsOf(mesh) };
  });
}

async function play(mesh: Mesh): Promise<void> {
  const { world } = mesh;
  const { random } = world;
  const troubleMs = random.int(1_000, troubleMsMax);
  world.note(() => `trouble for ${troubleMs} ms: ${mesh.trouble.names.join(", ") || "none"}`);
  for (let count = random.int(1, 3); count > 0; count--)
    world.after(random.int(0, 1_000), () => void startRun(mesh, true));
  const faulty = random.chance(0.75);
  for (let count = random.int(0, 14); count > 0; count--) {
    const { happen, fault } = random.weighted(happenings);
    if (faulty || !fault) world.after(random.int(100, troubleMs), () => happen(mesh));
  }
  await world.until(() => mesh.violation !== undefined, troubleMs);
  calm(mesh);
  const calmAtMs = world.nowMs;
  const allEnded = (): boolean => [...mesh.store.runs.values()].every(({ status }) => isFinal(status));
  await world.until(() => mesh.violation !== undefined || allEnded(), calmMsMax);
  await world.until(() => mesh.violation !== undefined, restMs);
  // A message that comes late in the rest may still make a batch, which is confirmed a second later.
  const confirmed = (): boolean => [...mesh.store.effectBatches.values()].every(({ size }) => size === 0);
  await world.until(() => mesh.violation !== undefined || confirmed(), confirmMsMax);
  if (mesh.violation !== undefined) throw mesh.violation;
  judge(mesh, calmAtMs);
}

/** From here on nothing goes wrong, and whoever is needed is there. */
function calm(mesh: Mesh): void {
  mesh.world.note(() => "calm");
  mesh.trouble.calm = true;
  if (mesh.live().length === 0) mesh.addCoordinator();
  if (!mesh.workers.some(({ alive }) => alive)) mesh.addWorker();
  signalAll(mesh);
  answerAll(mesh);
  mendAll(mesh);
}

/** A run waits for the runs that it starts, each of which may have to wait as long; a start that nobody knows to be lost may wait for ever. */
function settleMsOf({ trouble, chains }: Mesh): number {
  if (trouble.names.includes("startSilentlyLost")) return Number.POSITIVE_INFINITY;
  return chains.some(({ kinds }) => kinds.some(({ nested }) => nested)) ? 3 * settleMs : settleMs;
}

function judge(mesh: Mesh, calmAtMs: number): void {
  const { store, ledger } = mesh;
  const ended = [...store.runs.keys()].map((id) => {
    const { run } = store.load(id)!;
    const settledAtMs = calmAtMs + settleMsOf(mesh);
    const own = mesh.chainOf(id).plan.steps;
    // Its deadline does not bound what it undoes.
    const undoMs = own.reduce((sum, { undoes, scheduleToCloseMs = 0 }) => {
      const items = undoes === undefined ? 0 : (run.steps[undoes]!.each?.succeeded ?? 1);
      return sum + items * scheduleToCloseMs;
    }, 0);
    // Nor does it bound how long a broken run stands that nobody can mend.
    const isBroken = store.history.get(id)!.some(({ kind }) => kind === EventKind.EVENT_KIND_RUN_BROKEN);
    const standsMs = (isBroken && mesh.chainOf(id).plan.brokenTtlMs) || 0;
    ledger.ended(run, Math.max(Math.min(run.deadlineAtMs, settledAtMs), calmAtMs) + standsMs + undoMs + graceMs);
    const parent = run.parent && store.load(run.parent.runId)?.run;
    const step =
      run.parent && mesh.chainOf(run.parent.runId).plan.steps.find(({ id: own }) => own === run.parent!.stepId);
    // What was left alone, or has answered, goes on by itself.
    const isLeft = run.answered !== undefined || (step && mesh.chainOf(parent!.id).kinds[step.index]?.leaves === true);
    if (parent && step?.child?.onParentClose === "cancel" && !isLeft)
      ledger.letGo(run, Math.max(parent.endedAtMs, calmAtMs) + undoMs + letGoMs);
    const end = store.history.get(id)!.find(({ kind }) => kind === EventKind.EVENT_KIND_RUN_ENDED)?.payload;
    const succeeded = run.status === RunStatus.RUN_STATUS_SUCCEEDED;
    const bytes = end?.bytes ?? store.payloads.get(end?.reference ?? "");
    const result = succeeded ? decode({ ...end!, ...(bytes ? { bytes } : {}) }) : undefined;
    const { plan, expected } = mesh.chainOf(id);
    const given = run.input.bytes ?? store.payloads.get(run.input.reference ?? "");
    const input = decode({ ...run.input, ...(given ? { bytes: given } : {}) });
    return [id, { run, plan, result, expected: expected(input) }] as const;
  });
  // A commit that lands after its caller gave up, and did its work anew, leaves its row until its coordinator ends.
  const landsLate = mesh.trouble.names.includes("databaseLate");
  const left = [...store.effectBatches.values()].reduce((sum, batch) => sum + batch.size, 0);
  const batches = landsLate ? 0 : left;
  ledger.rest(new Map(ended), {
    "ready rows": store.ready.size,
    bindings: store.bindings.size,
    "open items": store.items.size,
    assignments: store.assignments.size,
    "effect batches": batches,
  });
}

function countsOf(mesh: Mesh): Record<string, number> {
  const counts: Record<string, number> = { ...mesh.ledger.seen, tasks: mesh.world.tasks, runs: mesh.store.runs.size };
  for (const { status } of mesh.store.runs.values()) {
    const name = RunStatus[status]!.replace("RUN_STATUS_", "");
    counts[name] = (counts[name] ?? 0) + 1;
  }
  return counts;
}
