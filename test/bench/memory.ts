/** memory: chain5 on the engine alone, with the resident memory of each process on the way. Node gives memory back late, so the last of each line counts. */
import { rssMb } from "./processes.js";
import { startEngine, startServers } from "./setup.js";

export interface MemoryOptions {
  /** Runs in all; the memory at half of them is what the end is compared with. */
  runs: number;
  inFlight: number;
}

const lines = 10;

export async function benchMemory({ runs, inFlight }: MemoryOptions): Promise<void> {
  const servers = await startServers();
  const engine = await startEngine(servers);
  const pids = { ...engine.pids, nats: servers.nats.pid, postgres: servers.postgres.pid };
  const seen: number[] = [];
  try {
    for (let line = 1; line <= lines; line++) {
      const count = Math.round(runs / lines);
      const { done, wrong } = await engine.run({ count, inFlight, first: line * count });
      const rss = Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, rssMb(pid)]));
      seen.push(rss["coordinator"] ?? 0);
      console.log(JSON.stringify({ name: "memory", runs: line * count, done, wrong, rss_mb: rss }));
    }
    const half = seen[lines / 2 - 1] ?? 0;
    const end = seen[lines - 1] ?? 0;
    const ratio = Math.round((end / half) * 1000) / 1000;
    console.log(JSON.stringify({ name: "memory summary", coordinator_mb: { half, end }, ratio }));
  } finally {
    await engine.stop();
    await servers.stop();
  }
}
