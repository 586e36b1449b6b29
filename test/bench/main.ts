/** npm run bench -- chain5 | calls | pages | fanout | contracts | memory | depth | sleepers | coordinators | storm | failover | all  [--rounds N] [--faults N] [--sleepers N] [--runs N] [--in-flight N] [--page-runs N] [--memory-runs N] [--workers N] [--step-ms N] [--kill-after-ms N] */
import { parseArgs } from "node:util";
import { benchCalls } from "./calls.js";
import { benchChain5 } from "./chain5.js";
import { benchContracts } from "./contracts.js";
import { benchCoordinators } from "./coordinators.js";
import { benchDepth } from "./depth.js";
import { benchFailover } from "./failover.js";
import { benchFanOut } from "./fanout.js";
import { benchMemory } from "./memory.js";
import { benchPages } from "./pages.js";
import { benchSleepers } from "./sleepers.js";
import { benchStorm } from "./storm.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "7" },
    runs: { type: "string", default: "2000" },
    "in-flight": { type: "string", default: "200" },
    "page-runs": { type: "string", default: "10000" },
    "memory-runs": { type: "string", default: "100000" },
    workers: { type: "string", default: "5000" },
    "step-ms": { type: "string", default: "2000" },
    "kill-after-ms": { type: "string", default: "0" },
    sleepers: { type: "string", default: "100000" },
    faults: { type: "string", default: "12" },
  },
});
const what = positionals[0] ?? "all";
const options = {
  rounds: Number(values.rounds),
  runs: Number(values.runs),
  inFlight: Number(values["in-flight"]),
  alone: 200,
  idleMs: 10_000,
};
const known = {
  chain5: () => benchChain5(options),
  calls: () =>
    benchCalls({ rounds: options.rounds, calls: options.runs, inFlight: options.inFlight, alone: options.alone }),
  pages: () => benchPages({ runs: Number(values["page-runs"]), inFlight: options.inFlight }),
  fanout: () => benchFanOut({ rounds: options.rounds }),
  depth: () => benchDepth({ rounds: options.rounds }),
  sleepers: () => benchSleepers({ runs: Number(values.sleepers), inFlight: options.inFlight }),
  contracts: () => benchContracts({ rounds: options.rounds }),
  coordinators: () => benchCoordinators({ rounds: options.rounds, runs: options.runs, inFlight: options.inFlight }),
  storm: () =>
    benchStorm({
      workers: Number(values.workers),
      stepMs: Number(values["step-ms"]),
      killAfterMs: Number(values["kill-after-ms"]),
    }),
  failover: () => benchFailover({ faults: Number(values.faults) }),
  memory: () => benchMemory({ runs: Number(values["memory-runs"]), inFlight: options.inFlight }),
};
const chosen = what === "all" ? Object.keys(known) : [what];
for (const name of chosen) {
  const bench = known[name as keyof typeof known];
  if (!bench) {
    console.error(`there is no bench ${name}; choose one of ${Object.keys(known).join(", ")}, all`);
    process.exit(2);
  }
  await bench();
}
process.exit(0);
