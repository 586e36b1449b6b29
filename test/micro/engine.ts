/**
 * What the engine and the text of its state cost a step of a chain of five, in nanoseconds of processor time:
 *
 *   node --import tsx --conditions=@taskmesh/source test/micro/engine.ts
 *
 * What is found here is small beside a commit, but it is on the one thread that everything waits for. Spreads in the middle of a literal, or
 * with fields behind them that they bring too, once made a step cost twice as much; a profile of this shows such things, one of the mesh hides them.
 */
import { accept, advance } from "../../coordinator/src/engine/advance.js";
import { planOf, startMs, value } from "../../coordinator/src/engine/plan-fixture.js";
import { encodeRunState } from "../../coordinator/src/engine/run-codec.js";

const rounds = 9;
const runs = 20_000;
const ids = ["a", "b", "c", "d", "e"];
const plan = planOf(Object.fromEntries(ids.map((id, i) => [id, { needs: ids.slice(Math.max(0, i - 1), i) }])));
const given = { namespaceId: 1, namespace: "default", input: value("in"), labels: {}, priority: 0 };
const output = { kind: "output", value: value("out") } as const;
let leases = 0;
const context = {
  nowMs: startMs,
  lease: () => `lease-${++leases}`.padEnd(16, "x"),
  childId: () => "",
  random: () => 0.5,
  admit: () => true,
};

/** One run from its acceptance to its end; answers the bytes of its states. */
function oneRun(id: string): number {
  let { run } = accept(plan, { id, ...given }, context);
  let bytes = encodeRunState(run).length;
  for (const [index, stepId] of ids.entries()) {
    const report = { stepId, item: 0, attempt: 1, lease: run.steps[index]!.lease };
    ({ run } = advance(
      run,
      plan,
      { kind: "complete", report, outcome: output, executionMs: 5, session: "s" },
      context,
    ));
    bytes += encodeRunState(run).length;
  }
  return bytes;
}

const nanos: number[] = [];
let bytes = 0;
for (let round = 0; round <= rounds; round++) {
  const before = process.cpuUsage();
  for (let i = 0; i < runs; i++) bytes = oneRun(`run-${i}`);
  const { user, system } = process.cpuUsage(before);
  nanos.push(((user + system) * 1_000) / (runs * ids.length));
}
// The first round warms up.
const sorted = nanos.slice(1).sort((a, b) => a - b);
const step = Math.round(sorted[rounds >> 1]!);
console.log(JSON.stringify({ engine_ns_a_step: step, best_ns: Math.round(sorted[0]!), state_bytes_a_run: bytes }));
