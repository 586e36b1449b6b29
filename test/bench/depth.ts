/** A chain that calls itself: what each level of sub-chains adds to the time of one run at a time. */
import { ChainServiceClient, ChainSpec, RunServiceClient, RunStatus, StartRunRequest } from "@taskmesh/proto";
import { createClient, parseChainDocument, unaryCall } from "@taskmesh/runtime";
import { median } from "./load.js";
import { startEngine, startServers } from "./setup.js";

const method = "acme.bench.v1.Bench/Down";
const chain = `
contract:
  name: ${method}
  input: { left: int32 }
  output: { counter: int32 }
steps:
  - id: down
    when: input.left > 0
    call: ${method}
    input: { left: input.left - 1 }
  - id: count
    call: acme.bench.v1.BenchActions/Count
    input: { counter: "has(steps.down.output) ? steps.down.output.counter : 0" }
output:
  counter: steps.count.output.counter
`;
/** Levels below the first run; 16 are allowed in all. */
const depths = [0, 5, 10, 15] as const;

export async function benchDepth({ rounds }: { rounds: number }): Promise<void> {
  const servers = await startServers();
  const engine = await startEngine(servers);
  const addresses = [{ host: "127.0.0.1", port: engine.grpcPort }];
  const chains = createClient(ChainServiceClient, { addresses });
  const runs = createClient(RunServiceClient, { addresses });
  const run = async (left: number): Promise<number> => {
    const startedAt = performance.now();
    const input = { $case: "json" as const, value: JSON.stringify({ left }) };
    const request = StartRunRequest.fromPartial({ namespace: "default", method, input });
    const { runId } = await unaryCall(runs, runs.startRun, request);
    const wait = { seconds: 30n, nanos: 0 };
    const { status } = await unaryCall(
      runs,
      runs.getResult,
      { namespace: "default", runId, wait },
      { deadlineMs: 40_000 },
    );
    if (status !== RunStatus.RUN_STATUS_SUCCEEDED) throw new Error(`a run of depth ${left} is ${RunStatus[status]}`);
    return performance.now() - startedAt;
  };
  try {
    const spec = parseChainDocument(chain).spec ?? ChainSpec.create();
    await unaryCall(chains, chains.putChain, { namespace: "default", spec, requireLiveWorkers: true });
    const measured = new Map<number, number>();
    for (const left of depths) {
      const ms: number[] = [];
      for (let n = 0; n < 20; n++) await run(left);
      for (let n = 0; n < rounds * 10; n++) ms.push(await run(left));
      measured.set(left, median(ms));
      console.log(JSON.stringify({ name: "depth", levels: left + 1, p50_ms: tenth(median(ms)) }));
    }
    const [first, last] = [measured.get(0) ?? 0, measured.get(15) ?? 0];
    console.log(JSON.stringify({ name: "depth summary", ms_per_level: tenth((last - first) / 15) }));
  } finally {
    chains.close();
    runs.close();
    await engine.stop();
    await servers.stop();
  }
}

const tenth = (value: number): number => Math.round(value * 10) / 10;
