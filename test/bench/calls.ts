/**
 * calls: one unary call of an action by a stock grpc-js client: durable, at a coordinator; direct, at a plain grpc-js server; and the floor, the
 * least durable work for one step with no engine and no gRPC. In turn on the same servers; one at a time for the latencies, many for the rate.
 */
import { median, quantile } from "./load.js";
import { cpuSeconds } from "./processes.js";
import { type Program, startCaller, startDirect, startEngine, startFloor, startServers } from "./setup.js";

export interface CallsOptions {
  rounds: number;
  /** Calls of a round with many at once. */
  calls: number;
  inFlight: number;
  /** Calls of a round one at a time. */
  alone: number;
}

interface Measured {
  calls_per_s: number;
  p50_ms: number;
  p99_ms: number;
  cpu_s_per_1000: number;
  wrong: number;
}

export async function benchCalls(options: CallsOptions): Promise<void> {
  const servers = await startServers();
  const engine = await startEngine(servers);
  const programs = {
    durable: await startCaller("durable", engine.grpcPort),
    direct: await startDirect(),
    floor: await startFloor(servers, 1),
  };
  const shared = [servers.nats.pid, servers.postgres.pid];
  const pids = (name: string, program: Program): number[] => [
    ...Object.values(program.pids),
    ...(name === "durable" ? Object.values(engine.pids) : []),
    ...(name === "direct" ? [] : shared),
  ];
  const results: Record<string, Measured[]> = { durable: [], direct: [], floor: [] };
  let first = 0;
  try {
    for (const program of Object.values(programs))
      await program.run({ count: options.calls, inFlight: options.inFlight, first });
    for (let round = 1; round <= options.rounds; round++) {
      const line: Record<string, Measured> = {};
      for (const [name, program] of Object.entries(programs)) {
        first += options.calls + options.alone;
        line[name] = await measure(program, pids(name, program), options, first);
        results[name]!.push(line[name]);
      }
      console.log(JSON.stringify({ name: "calls", round, ...line }));
    }
    console.log(JSON.stringify({ name: "calls summary", ...summaryOf(results) }));
  } finally {
    for (const program of [...Object.values(programs), engine]) await program.stop();
    await servers.stop();
  }
}

async function measure(program: Program, pids: number[], options: CallsOptions, first: number): Promise<Measured> {
  const cpu = (): number => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const before = cpu();
  const load = await program.run({ count: options.calls, inFlight: options.inFlight, first });
  const used = cpu() - before;
  const alone = await program.run({ count: options.alone, inFlight: 1, first: first + options.calls });
  return {
    calls_per_s: Math.round((load.done / load.ms) * 1_000),
    p50_ms: round(median(alone.latenciesMs)),
    p99_ms: round(quantile(alone.latenciesMs, 0.99)),
    cpu_s_per_1000: round((used / load.done) * 1_000),
    wrong: load.wrong + alone.wrong,
  };
}

const summaryOf = (results: Record<string, Measured[]>): Record<string, Measured> =>
  Object.fromEntries(
    Object.entries(results).map(([name, rounds]) => {
      const of = (pick: (one: Measured) => number): number => round(median(rounds.map(pick)));
      return [
        name,
        {
          calls_per_s: of((one) => one.calls_per_s),
          p50_ms: of((one) => one.p50_ms),
          p99_ms: of((one) => one.p99_ms),
          cpu_s_per_1000: of((one) => one.cpu_s_per_1000),
          wrong: rounds.reduce((sum, one) => sum + one.wrong, 0),
        },
      ];
    }),
  );

const round = (value: number): number => Math.round(value * 1_000) / 1_000;
