/** One run with a fan-out of 1,000 and one of 10,000 items, in turn: time per item, and the coordinator's memory. */
import { ChainServiceClient, ChainSpec, RunServiceClient, RunStatus, StartRunRequest } from "@taskmesh/proto";
import { createClient, parseChainDocument, unaryCall } from "@taskmesh/runtime";
import { median } from "./load.js";
import { cpuSeconds, rssMb } from "./processes.js";
import { startEngine, startServers } from "./setup.js";

const method = "acme.bench.v1.Bench/FanOut";
const chain = `
contract:
  name: ${method}
  input: { numbers: repeated int32 }
  output: { count: int32 }
steps:
  - id: count
    call: acme.bench.v1.BenchActions/Count
    each: { items: input.numbers }
    input: { counter: each.value, run: each.index }
output:
  count: size(steps.count.output)
`;
const sizes = [1_000, 10_000] as const;

export async function benchFanOut({ rounds }: { rounds: number }): Promise<void> {
  const servers = await startServers();
  const engine = await startEngine(servers);
  const addresses = [{ host: "127.0.0.1", port: engine.grpcPort }];
  const chains = createClient(ChainServiceClient, { addresses });
  const runs = createClient(RunServiceClient, { addresses });
  const spec = parseChainDocument(chain).spec ?? ChainSpec.create();
  const coordinator = engine.pids["coordinator"] ?? 0;

  const run = async (items: number): Promise<{ ms: number; cpuS: number }> => {
    const input = {
      $case: "json" as const,
      value: JSON.stringify({ numbers: Array.from({ length: items }, (_, n) => n) }),
    };
    const startedAt = performance.now();
    const cpuBefore = cpuSeconds(coordinator);
    const request = StartRunRequest.fromPartial({ namespace: "default", method, input });
    const { runId } = await unaryCall(runs, runs.startRun, request);
    const wait = { seconds: 50n, nanos: 0 };
    for (;;) {
      const asked = { namespace: "default", runId, wait };
      const { status } = await unaryCall(runs, runs.getResult, asked, { deadlineMs: 60_000 });
      if (status === RunStatus.RUN_STATUS_SUCCEEDED) break;
      if (status !== RunStatus.RUN_STATUS_RUNNING)
        throw new Error(`the run of ${items} items ended as ${RunStatus[status]}`);
    }
    return { ms: performance.now() - startedAt, cpuS: cpuSeconds(coordinator) - cpuBefore };
  };

  try {
    await unaryCall(chains, chains.putChain, { namespace: "default", spec, requireLiveWorkers: true });
    for (let n = 0; n < 3; n++) await run(1_000);
    const perItem = new Map<number, number[]>(sizes.map((size) => [size, []]));
    for (let round = 1; round <= rounds; round++) {
      for (const items of sizes) {
        const { ms, cpuS } = await run(items);
        perItem.get(items)?.push(ms / items);
        const figures = {
          items,
          ms: Math.round(ms),
          ms_per_item: three(ms / items),
          items_per_s: Math.round((1_000 * items) / ms),
        };
        const cost = { cpu_ms_per_item: three((1_000 * cpuS) / items), rss_mb: rssMb(coordinator) };
        console.log(JSON.stringify({ name: "fanout", round, ...figures, ...cost }));
      }
    }
    const [few, many] = sizes.map((size) => median(perItem.get(size) ?? []));
    const summary = { ms_per_item_1000: three(few ?? 0), ms_per_item_10000: three(many ?? 0) };
    console.log(JSON.stringify({ name: "fanout summary", ...summary, ratio: three((many ?? 0) / (few ?? 1)) }));
  } finally {
    chains.close();
    runs.close();
    await engine.stop();
    await servers.stop();
  }
}

const three = (value: number): number => Math.round(value * 1_000) / 1_000;
