/** For tests: runs made by the real engine, and what the store holds of them. */
import { randomUUID } from "node:crypto";
import { uuidv7 } from "@taskmesh/runtime";
import type { ChainPlan } from "../engine/plan.js";
import { type RunBench, startRun } from "../engine/plan-fixture.js";
import type { Advance } from "../engine/run-event.js";
import { openTestDatabase, type TestDatabase } from "../registry/registry-fixture.js";
import { type CommitResult, commitBatch, type RunWrite } from "./commit.js";
import type { Db } from "./db.js";
import { uuidAt } from "./partitions.js";

/** An empty, migrated database with the namespace `default`, whose id is 1. */
export async function openStore(kind: Db["kind"]): Promise<TestDatabase> {
  const database = await openTestDatabase(kind);
  await database.db.query("insert into namespaces (id, name) values (1, 'default') on conflict do nothing");
  return database;
}

/** A run that is not stored yet, accepted now unless told otherwise. */
export const newRun = (plan: ChainPlan, options: Parameters<typeof startRun>[1] = {}): RunBench =>
  startRun(plan, { id: uuidv7(), nowMs: Date.now(), ...options });

/** A run id of that instant. */
export const idAt = (ms: number): string => `${uuidAt(ms).slice(0, 14)}7${randomUUID().slice(15)}`;

/** What the bench's last event, or the events of `turns`, contribute to a batch. */
export function writeOf(bench: RunBench, turns: readonly Advance[] = [bench.last]): RunWrite {
  const { method, version, contract } = bench.plan;
  return {
    run: bench.run,
    expectedVersion: bench.run.version,
    method,
    chainVersion: version,
    contract,
    records: turns.flatMap((turn) => turn.records),
    effects: turns.flatMap((turn) => turn.effects),
    logs: [],
  };
}

let batches = 0;

/** Commits and, as the pipeline does, counts up the version of what was written. */
export async function commit(db: Db, writes: RunWrite[]): Promise<CommitResult> {
  const result = await commitBatch(db, { coordinatorId: "c1", writes, batchNo: ++batches, pending: [], confirmed: [] });
  for (const { run, expectedVersion } of writes) if (result.written.has(run.id)) run.version = expectedVersion + 1;
  return result;
}

/** Rows of a table that belong to a run. */
export async function rowsOf(db: Db, table: string, runId: string): Promise<Record<string, unknown>[]> {
  const column = table === "runs" ? "id" : "run_id";
  return db.query(`select * from ${table} where ${column} = $1::uuid order by 1, 2`, [runId]);
}
