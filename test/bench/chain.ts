/** chain5: five steps in a row, three fields bound by CEL in each. */
import { ChainServiceClient, ChainSpec } from "@taskmesh/proto";
import { createClient, unaryCall } from "@taskmesh/runtime";
import { stepsPerRun } from "./load.js";

export const chainMethod = "acme.bench.v1.Bench/Chain5";
const fields = { counter: "int32", run: "int64", pad: "string" };

const from = (source: string) =>
  Object.fromEntries(
    Object.keys(fields).map((field) => [field, { kind: { $case: "cel" as const, value: `${source}.${field}` } }]),
  );

export const chain5: ChainSpec = ChainSpec.fromPartial({
  contract: { name: chainMethod, input: fields, output: fields },
  steps: Array.from({ length: stepsPerRun }, (_, i) => ({
    id: `s${i + 1}`,
    call: "acme.bench.v1.BenchActions/Count",
    input: from(i === 0 ? "input" : `steps.s${i}.output`),
  })),
  output: from(`steps.s${stepsPerRun}.output`),
});

/** Saves chain5 at a coordinator, as soon as its worker serves. */
export async function putChain5(address: { host: string; port: number }): Promise<void> {
  const client = createClient(ChainServiceClient, { addresses: [address] });
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        await unaryCall(client, client.putChain, { namespace: "default", spec: chain5, requireLiveWorkers: true });
        return;
      } catch (error) {
        if (attempt === 50) throw error;
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    }
  } finally {
    client.close();
  }
}
