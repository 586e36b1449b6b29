/** A worker that takes 40 ms for a step, and writes down when it began each attempt. */
import { appendFileSync } from "node:fs";
import { defineAction, startWorker } from "@taskmesh/action-sdk";
import { BenchActionsService } from "./gen/acme/bench/v1/bench.js";
import { descriptors } from "./gen/descriptors.js";

const stepMs = 40;
const file = process.env["BENCH_BEGUN"] ?? "/dev/null";

const count = defineAction(BenchActionsService.count, async (input) => {
  appendFileSync(file, `${Date.now()}\n`);
  await new Promise((resolve) => setTimeout(resolve, stepMs));
  return { ...input, counter: input.counter + 1 };
});
await startWorker({ descriptors, actions: [count], slots: 20, quiet: true });
process.on("disconnect", () => process.exit(0));
process.send?.("ready");
