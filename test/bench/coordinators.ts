/** coordinators: chain5 with 1, 2 and 3 coordinators over one Postgres and one nats-server, and a worker for each; the same runs in flight in all. */
import { median } from "./load.js";
import { cpuSeconds } from "./processes.js";
import { startEngines, startServers } from "./setup.js";

export interface CoordinatorsOptions {
  rounds: number;
  runs: number;
  inFlight: number;
}

const counts = [1, 2, 3] as const;

export async function benchCoordinators({ rounds, runs, inFlight }: CoordinatorsOptions): Promise<void> {
  const summary: Record<string, number> = {};
  for (const count of counts) {
    const servers = await startServers();
    const engines = await startEngines(servers, count);
    const shared = { nats: servers.nats.pid, postgres: servers.postgres.pid };
    const pids = [...engines.flatMap((engine) => Object.values(engine.pids)), ...Object.values(shared)];
    const cpu = (): number => pids.reduce((sum, pid) => sum + cpuSeconds(pid), 0);
    const rates: number[] = [];
    let next = 0;
    const round = async (): Promise<{ steps: number; wrong: number; perSecond: number; cpuS: number }> => {
      const share = Math.ceil(runs / count);
      const startedAt = performance.now();
      const before = cpu();
      const results = await Promise.all(
        engines.map((engine, i) =>
          engine.run({ count: share, inFlight: Math.ceil(inFlight / count), first: next + i * share }),
        ),
      );
      next += share * count;
      const steps = 5 * share * count;
      const wrong = results.reduce((sum, result) => sum + result.wrong, 0);
      return { steps, wrong, perSecond: (1_000 * steps) / (performance.now() - startedAt), cpuS: cpu() - before };
    };
    try {
      await round();
      for (let n = 1; n <= rounds; n++) {
        const { steps, wrong, perSecond, cpuS } = await round();
        rates.push(perSecond);
        const figures = { steps_per_s: Math.round(perSecond), cpu_s_per_1000: Math.round((1e6 * cpuS) / steps) / 1e3 };
        console.log(JSON.stringify({ name: "coordinators", coordinators: count, round: n, wrong, ...figures }));
      }
    } finally {
      for (const engine of engines) await engine.stop();
      await servers.stop();
    }
    summary[`steps_per_s_${count}`] = Math.round(median(rates));
  }
  console.log(JSON.stringify({ name: "coordinators summary", ...summary }));
}
