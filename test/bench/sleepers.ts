/**
 * Runs that sleep: what they cost while they do, how late they wake while chain5 keeps the mesh half busy, and how long it takes when many are
 * due at once.
 */
import { ChainServiceClient, ChainSpec, RunServiceClient, StartRunRequest } from "@taskmesh/proto";
import { createClient, parseChainDocument, unaryCall } from "@taskmesh/runtime";
import postgres from "postgres";
import { quantile } from "./load.js";
import { rssMb } from "./processes.js";
import { startEngine, startServers } from "./setup.js";

export interface SleepersOptions {
  /** Sleeping runs. */
  runs: number;
  inFlight: number;
}

const method = "acme.bench.v1.Bench/Sleep";
const chain = `
contract:
  name: ${method}
  input: { due: google.protobuf.Timestamp }
  output: {}
steps:
  - { id: sleep, wait: { until: input.due } }
`;
const atOnce = 10_000;
/** The sleepers wake over this long. */
const spreadMs = 60_000;
/** Starts under way at once. */
const startsMax = 200;
/** Starts that are timed, to know how long the others will take. */
const timedStarts = 1_000;
/** Sleepers that have not ended this long after the last was due are a fault. */
const latestMs = 120_000;

export async function benchSleepers({ runs, inFlight }: SleepersOptions): Promise<void> {
  const servers = await startServers();
  const engine = await startEngine(servers);
  const addresses = [{ host: "127.0.0.1", port: engine.grpcPort }];
  const chains = createClient(ChainServiceClient, { addresses });
  const client = createClient(RunServiceClient, { addresses });
  const sql = postgres(servers.databaseUrl, { max: 1, onnotice: () => {} });
  const coordinator = engine.pids["coordinator"] ?? 0;

  /** Starts `count` runs, the n-th of which is to wake at `dueMs(n)`; `group` is their label. */
  const start = async (group: string, count: number, dueMs: (n: number) => number): Promise<void> => {
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < count) {
        const due = Math.round(dueMs(next++));
        const input = { $case: "json" as const, value: JSON.stringify({ due: new Date(due).toISOString() }) };
        const labels = { group, due: String(due) };
        await unaryCall(
          client,
          client.startRun,
          StartRunRequest.fromPartial({ namespace: "default", method, input, labels }),
        );
      }
    };
    await Promise.all(Array.from({ length: startsMax }, lane));
  };
  /** How late each run of the group ended, in milliseconds; waits until all have. */
  const lateness = async (group: string, count: number): Promise<number[]> => {
    const endAt = performance.now() + latestMs;
    for (;;) {
      // Runs that have not ended are the ones with a wake-up: an index of their own counts them, so that looking costs the others little.
      const [row] = await sql<{ left: number }[]>`select count(*)::int as left from runs where wakeup_at is not null`;
      if (row?.left === 0) break;
      if (performance.now() > endAt)
        throw new Error(`${row?.left} runs still sleep ${latestMs / 1_000} s after the last was due`);
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
    const rows = await sql<{ late: number }[]>`
      select (extract(epoch from ended_at) * 1000 - (labels->>'due')::float8)::float8 as late
      from runs where labels->>'group' = ${group}`;
    if (rows.length !== count) throw new Error(`${rows.length} of ${count} runs are there`);
    return rows.map(({ late }) => late);
  };
  const report = (name: string, late: number[], more: object): void => {
    const [p50, p99, max] = [0.5, 0.99, 1].map((share) => Math.round(quantile(late, share)));
    console.log(JSON.stringify({ name, runs: late.length, late_ms: { p50, p99, max }, ...more }));
  };

  try {
    const spec = parseChainDocument(chain).spec ?? ChainSpec.create();
    await unaryCall(chains, chains.putChain, { namespace: "default", spec, requireLiveWorkers: false });
    await engine.run({ count: 2_000, inFlight, first: 1 });
    const busiest = await engine.run({ count: 4_000, inFlight, first: 10_000 });
    const perSecond = Math.round((busiest.done / busiest.ms) * 500);
    const before = rssMb(coordinator);
    const timedAt = performance.now();
    await start("timed", timedStarts, () => Date.now());
    const msPerStart = (performance.now() - timedAt) / timedStarts;
    /** Between the start of the first of `count` sleepers and the first that is due: enough, unless the machine slows down by half. */
    const startMs = (count: number): number => Math.round(10_000 + 1.5 * count * msPerStart);
    const startedAt = performance.now();
    const wakeAtMs = Date.now() + startMs(runs);
    await start("spread", runs, (n) => wakeAtMs + (n / runs) * spreadMs);
    // Nobody may wake before all sleep.
    if (Date.now() > wakeAtMs) throw new Error(`starting ${runs} sleepers took longer than ${startMs(runs) / 1_000} s`);
    const startsPerS = Math.round((1_000 * runs) / (performance.now() - startedAt));
    const asleep = rssMb(coordinator);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, wakeAtMs - Date.now())));
    const seconds = spreadMs / 1_000;
    const load = await engine.run({ count: perSecond * seconds, inFlight, first: 100_000, perSecond });
    const late = await lateness("spread", runs);
    const beside = { runs_per_s: Math.round((1_000 * load.done) / load.ms), wrong: load.wrong };
    report("sleepers", late, { starts_per_s: startsPerS, rss_mb: { before, asleep }, beside_chain5: beside });

    const sameMs = Date.now() + startMs(atOnce);
    await start("same", atOnce, (n) => sameMs + (n / atOnce) * 1_000);
    if (Date.now() > sameMs)
      throw new Error(`starting ${atOnce} sleepers took longer than ${startMs(atOnce) / 1_000} s`);
    report("sleepers due in one second", await lateness("same", atOnce), {});
  } finally {
    chains.close();
    client.close();
    await sql.end();
    await engine.stop();
    await servers.stop();
  }
}
