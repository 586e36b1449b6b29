/** The coordinator as a part of a process: main.ts runs it alone, the embedded mesh and tests run it beside others. */
export { type Coordinator, type CoordinatorParts, createCoordinator } from "./coordinator.js";
export { diagnoseServers } from "./diagnose.js";
export { boundHeapGrowth } from "./heap.js";
export type { Database } from "./store/db.js";
export { openPglite } from "./store/pglite.js";
export { openPostgres } from "./store/postgres.js";
