import { AttemptLogs, RunStatus } from "@taskmesh/proto";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { planOf } from "../engine/plan-fixture.js";
import { stopDatabases, type TestDatabase } from "../registry/registry-fixture.js";
import type { Database } from "./db.js";
import { claimReady, waitingQueues } from "./ready.js";
import { listRuns, readEnd, readEvents, readLogs } from "./run-reads.js";
import { commit, newRun, openStore, writeOf } from "./store-fixture.js";

afterAll(stopDatabases);

const plan = planOf({ a: {} });

describe.each(["pglite", "postgres"] as const)("reads on %s", (kind) => {
  let database: TestDatabase;
  let db: Database;
  beforeEach(async () => {
    database = await openStore(kind);
    db = database.db;
    await db.query("delete from runs");
    await db.query("delete from ready_steps");
  });
  afterEach(() => database.dispose());

  const store = async (count: number, options: Parameters<typeof newRun>[1] = {}) => {
    const benches = Array.from({ length: count }, () => newRun(plan, options));
    await commit(
      db,
      benches.map((bench) => writeOf(bench)),
    );
    return benches;
  };

  it("page through runs newest first, without gaps or repetitions, also when new ones come meanwhile", async () => {
    const benches = await store(7);
    const expected = benches.map(({ run }) => run.id).reverse();
    const seen: string[] = [];
    for (let page = 0; page < 4; page++) {
      const beforeId = seen.at(-1);
      const about = { namespaceId: 1, statuses: [], labels: {}, limit: 2, ...(beforeId ? { beforeId } : {}) };
      seen.push(...(await listRuns(db, about)).map(({ id }) => id));
      await store(1);
    }
    expect(seen).toEqual(expected);
  });

  it("list by namespace, status, method, labels and time of acceptance", async () => {
    const [plain] = await store(1, { nowMs: Date.now() - 60_000 });
    const [labelled] = await store(1, { labels: { team: "a", tier: "1" } });
    const [ended] = await store(1);
    await store(1, { namespaceId: 2 });
    ended!.complete("a");
    await commit(db, [writeOf(ended!)]);
    const list = async (filter: Partial<Parameters<typeof listRuns>[1]>): Promise<string[]> => {
      const found = await listRuns(db, { namespaceId: 1, statuses: [], labels: {}, limit: 10, ...filter });
      return found.map(({ id }) => id);
    };
    const [one, two, three] = [plain!.run.id, labelled!.run.id, ended!.run.id];
    expect(await list({})).toEqual([three, two, one]);
    expect(await list({ statuses: [RunStatus.RUN_STATUS_SUCCEEDED] })).toEqual([three]);
    expect(await list({ statuses: [RunStatus.RUN_STATUS_RUNNING, RunStatus.RUN_STATUS_SUCCEEDED] })).toHaveLength(3);
    expect(await list({ method: "other" })).toEqual([]);
    expect(await list({ labels: { team: "a" } })).toEqual([two]);
    expect(await list({ labels: { team: "a", tier: "2" } })).toEqual([]);
    expect(await list({ acceptedBeforeMs: Date.now() - 30_000 })).toEqual([one]);
    expect(await list({ acceptedAfterMs: Date.now() - 30_000 })).toEqual([three, two]);
  });

  it("list why runs failed, whatever their messages hold, and nothing for others", async () => {
    const benches = await store(2);
    const message = `"\u0000 \\ 'é${"x".repeat(2_000)}`;
    const failure = { reason: "CLOSED", message, retryable: false, details: [], cause: undefined };
    benches[0]!.complete("a", { kind: "failure", failure });
    await commit(db, [writeOf(benches[0]!)]);
    const listed = await listRuns(db, { namespaceId: 1, statuses: [], labels: {}, limit: 10 });
    const brief = { ...failure, message: `step "a": ${message}`.slice(0, 512) };
    expect(listed.map((run) => run.failure)).toEqual([undefined, brief]);
  });

  it("give the history after a cursor, in order, with payloads only if asked for", async () => {
    const [bench] = await store(1);
    bench!.bind("a");
    await commit(db, [writeOf(bench!)]);
    bench!.complete("a", "out");
    await commit(db, [writeOf(bench!)]);
    const { id, lastSeq } = bench!.run;
    const read = (afterSeq: number, limit = 10, payloads = true) => readEvents(db, id, { afterSeq, limit, payloads });
    expect((await read(0)).map(({ seq }) => seq)).toEqual(Array.from({ length: lastSeq }, (_, at) => at + 1));
    expect((await read(1, 1)).map(({ seq }) => seq)).toEqual([2]);
    expect(await read(lastSeq)).toEqual([]);
    expect((await read(0))[0]?.payload?.bytes).toHaveLength(2);
    expect((await read(0, 10, false)).every(({ payload }) => payload === undefined)).toBe(true);
    const end = await readEnd(db, id);
    expect(end).toMatchObject({ seq: lastSeq, step: -1, body: { runStatus: RunStatus.RUN_STATUS_SUCCEEDED } });
    expect(Buffer.from(end?.payload?.bytes ?? []).toString()).toBe("output");
  });

  it("give the moves and reasons that events tell", async () => {
    const [bench] = await store(1);
    bench!.apply({ kind: "lose", report: bench!.report("a"), why: "its worker is gone" });
    await commit(db, [writeOf(bench!)]);
    const [event] = await readEvents(db, bench!.run.id, { afterSeq: 1, limit: 1, payloads: false });
    expect(event).toMatchObject({ step: 0, attempt: 1, body: { note: "its worker is gone" } });
    expect(event?.body.moves).toEqual(bench!.last.records[0]?.moves);
  });

  it("give logs by step", async () => {
    const [bench] = await store(1);
    bench!.bind("a");
    const lines = AttemptLogs.encode({ stepId: "a", item: 0, attempt: 1, lines: [] }).finish();
    await commit(db, [{ ...writeOf(bench!), logs: [{ step: 0, item: 0, attempt: 1, lines }] }]);
    expect(await readLogs(db, bench!.run.id, undefined)).toMatchObject([{ stepId: "a", attempt: 1 }]);
    expect(await readLogs(db, bench!.run.id, 0)).toHaveLength(1);
    expect(await readLogs(db, bench!.run.id, 1)).toEqual([]);
  });

  it("take the best of the ready queue first, each step by one coordinator only", async () => {
    const low = await store(2, { room: 0, priority: 1 });
    const high = await store(2, { room: 0, priority: 5 });
    expect(await waitingQueues(db)).toEqual([{ namespaceId: 1, taskQueue: "test" }]);
    const queue = { namespaceId: 1, taskQueue: "test", callees: ["test.v1.TestActions/a@contract-a"], holdMs: 60_000 };
    expect(await claimReady(db, { ...queue, callees: ["other"], limit: 9 })).toEqual([]);
    const ids = (steps: readonly { runId: string }[]): string[] => steps.map(({ runId }) => runId).sort();
    expect(ids(await claimReady(db, { ...queue, limit: 2 }))).toEqual(high.map(({ run }) => run.id).sort());
    const claims = [database.db, database.another()].map((on) => claimReady(on, { ...queue, limit: 1 }));
    expect(ids((await Promise.all(claims)).flat())).toEqual(low.map(({ run }) => run.id).sort());
    expect(await claimReady(db, { ...queue, limit: 9 })).toEqual([]);
    await db.query("update ready_steps set claimed_until = now() - interval '1 second'");
    expect(await claimReady(db, { ...queue, limit: 9 })).toHaveLength(4);
  });
});
