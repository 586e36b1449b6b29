/** The engine's worker: the public SDK with its defaults, and slots for the load. */
import { defineAction, startWorker } from "@taskmesh/action-sdk";
import { BenchActionsService } from "./gen/acme/bench/v1/bench.js";
import { descriptors } from "./gen/descriptors.js";

const count = defineAction(BenchActionsService.count, async (input) => ({ ...input, counter: input.counter + 1 }));
await startWorker({ descriptors, actions: [count], slots: 256, quiet: true });
process.on("disconnect", () => process.exit(0));
process.send?.("ready");
