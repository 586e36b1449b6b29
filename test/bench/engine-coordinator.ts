/** The engine's side of chain5: a coordinator with its defaults, driven from within its process as the floor is. */

import { boundHeapGrowth, createCoordinator } from "@taskmesh/coordinator";
import { RunStatus } from "@taskmesh/proto";
import { coordinatorConfig, sha256 } from "@taskmesh/runtime";
import { chainMethod } from "./chain.js";
import { CountRequest, CountResponse } from "./gen/acme/bench/v1/bench.js";
import { pad, serveAsks, stepsPerRun } from "./load.js";

boundHeapGrowth();
const coordinator = createCoordinator(coordinatorConfig(process.env));
await coordinator.start();
const { engine, registry } = coordinator;

serveAsks(async (i) => {
  const plan = await registry.plans.current(1, chainMethod);
  if (!plan) throw new Error(`${chainMethod} is not registered`);
  const bytes = CountRequest.encode({ counter: 0, run: BigInt(i), pad }).finish();
  const input = { contract: plan.contract, sizeBytes: bytes.length, sha256: sha256(bytes), bytes };
  const command = { namespaceId: 1, namespace: "default", plan, input, labels: {}, priority: 0 };
  const { runId } = await engine.intake.startRun(command);
  const result = await new Promise<Parameters<Parameters<typeof engine.results.onEnd>[1]>[0]>((resolve) => {
    engine.results.onEnd(runId, resolve);
  });
  if (result.status !== RunStatus.RUN_STATUS_SUCCEEDED || !result.output?.bytes) return false;
  const { counter, run } = CountResponse.decode(result.output.bytes);
  return counter === stepsPerRun && run === BigInt(i);
});
