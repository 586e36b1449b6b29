/**
 * chain5: five sequential steps of about 200 bytes, at most 200 runs in flight, the engine and the floor in turn on the same servers.
 * One JSON line a round, a summary at the end. Times are for people: no test depends on them.
 */

import { EventKind } from "@taskmesh/proto";
import postgres from "postgres";
import { median, quantile, stepsPerRun } from "./load.js";
import { cpuSeconds, machineSeconds, rssMb } from "./processes.js";
import { type Program, type Servers, startEngine, startFloor, startServers } from "./setup.js";

export interface Chain5Options {
  rounds: number;
  runs: number;
  inFlight: number;
  /** Runs, one at a time, for the latencies. */
  alone: number;
  idleMs: number;
}

interface Measured {
  steps_per_s: number;
  runs_per_s: number;
  p50_ms: number;
  p99_ms: number;
  cpu_s_per_1000_steps: Record<string, number>;
  wrong: number;
}

const warmUpRuns = 2_000;

export async function benchChain5(options: Chain5Options): Promise<void> {
  const servers = await startServers();
  const floor = await startFloor(servers);
  const engine = await startEngine(servers);
  const results: { ratio: number; p50: number; cpu: number }[] = [];
  try {
    let first = 1_000_000;
    // Compilers and caches are warm when it counts: this is about services that run for weeks.
    for (const program of [floor, engine])
      await program.run({ count: warmUpRuns, inFlight: options.inFlight, first: 0 });
    for (let round = 1; round <= options.rounds; round++) {
      const base = await measure(floor, servers, options, first);
      const own = await measure(engine, servers, options, first);
      first += options.runs + options.alone;
      const ratio = own.steps_per_s / base.steps_per_s;
      results.push({ ratio, p50: own.p50_ms / base.p50_ms, cpu: total(own) / total(base) });
      const line = {
        name: "chain5",
        round,
        ...own,
        rss_mb: memory(engine, servers),
        floor: base,
        floor_steps_per_s: base.steps_per_s,
      };
      console.log(JSON.stringify({ ...line, ratio: round3(ratio) }));
    }
    const idle = await idleCpu(engine, servers, options.idleMs);
    const records = await checkRecords(servers);
    const summary = {
      name: "chain5 summary",
      ratio: round3(median(results.map((r) => r.ratio))),
      p50_ratio: round3(median(results.map((r) => r.p50))),
      cpu_ratio: round3(median(results.map((r) => r.cpu))),
      idle_cpu_percent: idle,
      ...records,
    };
    console.log(JSON.stringify(summary));
  } finally {
    await Promise.all([floor.stop(), engine.stop()]);
    await servers.stop();
  }
}

const round3 = (value: number): number => Math.round(value * 1000) / 1000;
const total = ({ cpu_s_per_1000_steps: cpu }: Measured): number => Object.values(cpu).reduce((a, b) => a + b, 0);

function pidsOf(program: Program, servers: Servers): Record<string, number> {
  return { ...program.pids, nats: servers.nats.pid, postgres: servers.postgres.pid };
}

const cpuOf = (pids: Record<string, number>): Record<string, number> =>
  Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, cpuSeconds(pid)]));

async function measure(program: Program, servers: Servers, options: Chain5Options, first: number): Promise<Measured> {
  const pids = pidsOf(program, servers);
  const before = cpuOf(pids);
  const load = await program.run({ count: options.runs, inFlight: options.inFlight, first });
  const after = cpuOf(pids);
  const alone = await program.run({ count: options.alone, inFlight: 1, first: first + options.runs });
  const steps = load.done * stepsPerRun;
  return {
    steps_per_s: Math.round((steps / load.ms) * 1000),
    runs_per_s: Math.round((load.done / load.ms) * 1000),
    p50_ms: round3(median(alone.latenciesMs)),
    p99_ms: round3(quantile(alone.latenciesMs, 0.99)),
    cpu_s_per_1000_steps: Object.fromEntries(
      Object.keys(pids).map((name) => [name, round3((((after[name] ?? 0) - (before[name] ?? 0)) / steps) * 1000)]),
    ),
    wrong: load.wrong + alone.wrong,
  };
}

function memory(program: Program, servers: Servers): Record<string, number> {
  return Object.fromEntries(Object.entries(pidsOf(program, servers)).map(([name, pid]) => [name, rssMb(pid)]));
}

/** Share of one core that all processes of the mesh use when there is nothing to do. */
async function idleCpu(program: Program, servers: Servers, ms: number): Promise<Record<string, number>> {
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  const pids = pidsOf(program, servers);
  const before = cpuOf(pids);
  const machineBefore = machineSeconds();
  await new Promise((resolve) => setTimeout(resolve, ms));
  const after = cpuOf(pids);
  const share = (seconds: number): number => round3((seconds / ms) * 100_000);
  const each = Object.keys(pids).map((name) => [name, share((after[name] ?? 0) - (before[name] ?? 0))] as const);
  return {
    ...Object.fromEntries(each),
    together: round3(each.reduce((sum, [, value]) => sum + value, 0)),
    machine: share(machineSeconds() - machineBefore),
  };
}

/** Every run has exactly five records of a step that succeeded. */
async function checkRecords(servers: Servers): Promise<{ runs: number; runs_with_other_than_5_records: number }> {
  const sql = postgres(servers.databaseUrl, { max: 1 });
  try {
    const [row] = await sql<{ runs: number; odd: number }[]>`
      select count(*)::int as runs, count(*) filter (where n <> ${stepsPerRun})::int as odd from (
        select run_id, count(*) filter (where kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}) as n from events group by run_id) as counted`;
    return { runs: row?.runs ?? 0, runs_with_other_than_5_records: row?.odd ?? -1 };
  } finally {
    await sql.end();
  }
}
