/**
 * Planted bugs: each is one small change that compiles and that a test must catch. docs/faults.md lists them with the test that kills each.
 *
 * `find` stands in the file exactly once, or the mutant is out of date. A mutant is killed by a test file of vitest (`name` narrows it down), or by so
 * many seeds of the simulator.
 */
export type Kill = { test: string; name?: string } | { seeds: number };

export interface Mutant {
  /** What the bug does. */
  name: string;
  part: "engine" | "pipeline" | "store" | "transport" | "sdk";
  file: string;
  find: string;
  replace: string;
  kill: Kill;
  /** Runs with the other tests, in CI. */
  quick?: true;
}

const engine: readonly Mutant[] = [
  {
    name: "hears a report under a superseded lease",
    part: "engine",
    file: "coordinator/src/engine/attempts.ts",
    find: "if (event.report.lease !== step.lease || !inFlight(step.status)) {",
    replace: "if (!inFlight(step.status)) {",
    kill: { seeds: 300 },
  },
  {
    name: "starts a join when the last of its needs is over",
    part: "engine",
    file: "coordinator/src/engine/joins.ts",
    find: "if (!join) return plan.needs.every(",
    replace: "if (!join) return plan.needs.slice(-1).every(",
    kill: { seeds: 100 },
    quick: true,
  },
  {
    name: "gives a step one attempt more than it may have",
    part: "engine",
    file: "coordinator/src/engine/retry.ts",
    find: "at.failures >= plan.attemptsMax",
    replace: "at.failures > plan.attemptsMax",
    kill: { test: "coordinator/src/engine/retry.test.ts" },
    quick: true,
  },
  {
    name: "undoes in the order of completion",
    part: "engine",
    file: "coordinator/src/engine/compensation.ts",
    find: "(run.done ?? []).toReversed()",
    replace: "(run.done ?? []).slice()",
    kill: { test: "coordinator/src/engine/compensation.test.ts" },
  },
  {
    name: "gives new attempts to a run that is held",
    part: "engine",
    file: "coordinator/src/engine/step-start.ts",
    find: "if (isHeld(turn.run.status)) {\n    holdStep",
    replace: "if (isHeld(turn.run.status) && turn.at) {\n    holdStep",
    kill: { test: "coordinator/src/engine/operate.test.ts" },
  },
  {
    name: "retries and times steps out though the run is being cancelled",
    part: "engine",
    file: "coordinator/src/engine/control.ts",
    find: "  else if (!run.cancel) {\n",
    replace: "  else {\n",
    kill: { test: "coordinator/src/engine" },
  },
  {
    name: "keeps the place in the window of a start that is sent again",
    part: "engine",
    file: "coordinator/src/engine/control.ts",
    find: "    forgetLease(turn, index);\n    touched = true;",
    replace: "    touched = true;",
    kill: { test: "coordinator/src/engine/control.test.ts" },
  },
  {
    name: "moves a stored wake-up later only, never earlier",
    part: "engine",
    file: "coordinator/src/engine/turn.ts",
    find: "next < turn.run.wakeupAtMs",
    replace: "next > turn.run.wakeupAtMs",
    kill: { test: "coordinator/src/engine/invariants.test.ts" },
  },
  {
    name: "records a success after a cancel",
    part: "engine",
    file: "coordinator/src/engine/attempts.ts",
    find: 'if (turn.run.cancel) return completeCancelled(turn, index, about);\n  if (outcome.kind === "cancelled") {',
    replace: 'if (outcome.kind === "cancelled") {',
    kill: { seeds: 300 },
  },
  {
    name: "gives an attempt up though its handler has asked for more time",
    part: "engine",
    file: "coordinator/src/engine/deadlines.ts",
    find: "step.startedAtMs + attemptLimitMs(step, plan) + timeoutGraceMs",
    replace: "step.startedAtMs + plan.startToCloseMs + timeoutGraceMs",
    kill: { seeds: 100 },
  },
  {
    name: "takes time away from an attempt whose handler asks for less than before",
    part: "engine",
    file: "coordinator/src/engine/attempts.ts",
    find: "if (askedMs <= attemptLimitMs(turn.run.steps[index]!, turn.plan.steps[index]!)) return false;",
    replace: "if (askedMs === 0) return false;",
    kill: { test: "coordinator/src/engine/deadlines.test.ts" },
  },
  {
    name: "forgets in the stored state how many attempts were lost",
    part: "engine",
    file: "coordinator/src/engine/run-codec.ts",
    find: "    s.lost,\n",
    replace: "    0,\n",
    kill: { test: "coordinator/src/engine/run-codec.test.ts" },
  },
];

const items: readonly Mutant[] = [
  {
    name: "has one item more under way than may be",
    part: "engine",
    file: "coordinator/src/engine/items.ts",
    find: "item < next && active < parallelMax",
    replace: "item < next && active <= parallelMax",
    kill: { seeds: 100 },
  },
  {
    name: "hears a run that is an item's attempt no more",
    part: "engine",
    file: "coordinator/src/engine/child-end.ts",
    find: "if (state?.lease !== event.childId) return",
    replace: "if (state === undefined) return",
    kill: { test: "coordinator/src/engine/item-runs.test.ts" },
  },
  {
    name: "undoes nothing of a fan-out that failed half-way",
    part: "engine",
    file: "coordinator/src/engine/compensation.ts",
    find: "each && each.succeeded > 0 && !run.done?.includes(index) ? [index] : []",
    replace: "each && each.succeeded > each.total && !run.done?.includes(index) ? [index] : []",
    kill: { seeds: 300 },
  },
  {
    name: "begins further items while its run waits for those that may not be left",
    part: "engine",
    file: "coordinator/src/engine/items.ts",
    find: "if (run.closing) return settleCancelled(turn, index);",
    replace: "if (run.closing && run.cancel) return settleCancelled(turn, index);",
    kill: { test: "coordinator/src/engine/item-runs.test.ts" },
  },
  {
    name: "takes the first item for each that a run stands for",
    part: "pipeline",
    file: "coordinator/src/pipeline/evaluator.ts",
    find: "placeOf(run.input.bytes)]",
    replace: "0 * placeOf(run.input.bytes)]",
    kill: { seeds: 100 },
  },
  {
    name: "leaves the runs of items alone that nobody may have asked to stop",
    part: "pipeline",
    file: "coordinator/src/pipeline/children.ts",
    find: "await Promise.all(left.map(cancelOnce));",
    replace: "await Promise.all(left.map((id) => id));",
    kill: { test: "coordinator/src/pipeline/children.test.ts", name: "for items" },
  },
  {
    name: "undoes items in the order in which they were done",
    part: "store",
    file: "coordinator/src/store/item-reads.ts",
    find: "order by seq desc offset",
    replace: "order by seq offset",
    kill: { test: "coordinator/src/store/item-reads.test.ts", name: "pglite" },
  },
];

const pipeline: readonly Mutant[] = [
  {
    name: "drops what a cached run refuses, without a fresh read",
    part: "pipeline",
    file: "coordinator/src/pipeline/fold.ts",
    find: "else if (item.fresh || context.freshIds.has(item.runId)) item.settle(settled);",
    replace: "else if (item.fresh || context.runs.has(item.runId)) item.settle(settled);",
    kill: { test: "coordinator/src/pipeline/pipeline.test.ts", name: "decides on a fresh read" },
  },
  {
    name: "takes any stored state for its own after a commit of unknown outcome",
    part: "pipeline",
    file: "coordinator/src/pipeline/pipeline.ts",
    find: "if (found?.version === expectedVersion + 1 && found.state === encodeRunState(run)) {",
    replace: 'if (found && found.state !== "" && run) {',
    kill: { seeds: 600 },
  },
  {
    name: "performs the effects of a run that lost its compare-and-set",
    part: "pipeline",
    file: "coordinator/src/pipeline/pipeline.ts",
    find: "      if (!written.has(run.id)) {\n",
    replace: "      if (!written.has(run.id)) {\n        deps.perform(draft, open.more());\n",
    kill: { seeds: 300 },
  },
  {
    name: "forgets the history of an event that shares a batch with another of its run",
    part: "pipeline",
    file: "coordinator/src/pipeline/fold.ts",
    find: "  write.records.push(...result.records);\n",
    replace: "",
    kill: { seeds: 300 },
  },
  {
    name: "lets newcomers past the steps that wait in the ready queue",
    part: "pipeline",
    file: "coordinator/src/pipeline/windows.ts",
    find: "taken >= state.window || (!fromQueue && this.#waiting.has(key))",
    replace: "taken >= state.window",
    kill: { test: "coordinator/src/pipeline/windows.test.ts" },
  },
  {
    name: "answers a start whose key another has won with a run that does not exist",
    part: "pipeline",
    file: "coordinator/src/pipeline/pipeline.ts",
    find: 'why === "taken") item.taken();',
    replace: 'why === "taken") item.settle(draft.write.run);',
    kill: { seeds: 200 },
  },
  {
    name: "does not send again what a lapsed coordinator had not sent",
    part: "pipeline",
    file: "coordinator/src/pipeline/recovery.ts",
    find: "batch.runIds.map(",
    replace: "batch.runIds.slice(1).map(",
    kill: { test: "coordinator/src/pipeline/pipeline.test.ts", name: "takes over what a lapsed coordinator" },
  },
];

const store: readonly Mutant[] = [
  {
    name: "writes a run whatever version is stored",
    part: "store",
    file: "coordinator/src/store/commit.ts",
    find: "where l.id = u.id and l.version = u.version and r.id = u.id and r.version = u.version returning r.id)",
    replace: "where l.id = u.id and r.id = u.id returning r.id)",
    kill: { test: "coordinator/src/store/commit.test.ts", name: "pglite" },
  },
  {
    name: "keeps the history of a run that lost its compare-and-set",
    part: "store",
    file: "coordinator/src/store/commit.ts",
    find: "  where e.run_id in (select id from ok))`,",
    replace: "  )`,",
    kill: { test: "coordinator/src/store/commit.test.ts", name: "pglite" },
  },
  {
    name: "gives an idempotency key to whoever comes last",
    part: "store",
    file: "coordinator/src/store/commit.ts",
    find: "expires_at = excluded.expires_at where i.expires_at < now()",
    replace: "expires_at = excluded.expires_at",
    kill: { test: "coordinator/src/store/commit.test.ts", name: "pglite" },
  },
  {
    name: "leaves in the ready queue what a later event of the batch took out",
    part: "store",
    file: "coordinator/src/store/commit-places.ts",
    find: "if (effect.kind !== kind && effect.kind !== opposite) continue;",
    replace: "if (effect.kind !== kind || effect.kind === opposite) continue;",
    kill: { test: "coordinator/src/store/commit.test.ts", name: "pglite" },
  },
  {
    name: "gives one step of the ready queue to two coordinators",
    part: "store",
    file: "coordinator/src/store/ready.ts",
    find: "        and (claimed_until is null or claimed_until < now())\n",
    replace: "",
    kill: { test: "coordinator/src/store/run-reads.test.ts" },
  },
  {
    name: "wakes a due run again and again",
    part: "store",
    file: "coordinator/src/store/runs.ts",
    find: "`update runs set wakeup_at = now() + $2::float8 * interval '1 millisecond' where id in (",
    replace: "`update runs set wakeup_at = now() - $2::float8 * interval '1 millisecond' where id in (",
    kill: { test: "coordinator/src/store/commit.test.ts", name: "sweeper" },
  },
];

const transport: readonly Mutant[] = [
  {
    name: "gives an attempt up whose completion may be unread",
    part: "transport",
    file: "coordinator/src/registry/heard.ts",
    find: "read >= doubt.mark ||",
    replace: "read >= 0 ||",
    kill: { test: "coordinator/src/registry/heard.test.ts", name: "waits for what is addressed" },
  },
  {
    name: "never delivers a start again that nobody acked",
    part: "transport",
    file: "runtime/src/transport/memory-queue.ts",
    find: "dueAtMs <= nowMs).map",
    replace: "dueAtMs < 0 && nowMs > 0).map",
    kill: { test: "runtime/src/transport/contract.test.ts", name: "memory" },
  },
  {
    name: "does not say that a start may have been delivered before",
    part: "transport",
    file: "runtime/src/transport/memory-work.ts",
    find: "message.deliveries > 1",
    replace: "message.deliveries > 2",
    kill: { test: "runtime/src/transport/contract.test.ts", name: "memory" },
  },
  {
    name: "counts a slot as free while its start is held",
    part: "transport",
    file: "runtime/src/transport/lane-hand.ts",
    find: "    this.#taken += 1;\n",
    replace: "",
    kill: { test: "runtime/src/transport/parts.test.ts", name: "lane hand" },
  },
  {
    name: "acks a repeated start under its oldest delivery",
    part: "transport",
    file: "runtime/src/transport/lane-hand.ts",
    find: "      known.ack = arrived.ack;\n",
    replace: "",
    kill: { test: "runtime/src/transport/parts.test.ts", name: "lane hand" },
  },
  {
    name: "settles only the first completion of a pack",
    part: "transport",
    file: "runtime/src/transport/completion-packer.ts",
    find: "of pack) stored(error",
    replace: "of pack.slice(0, 1)) stored(error",
    kill: { test: "runtime/src/transport/parts.test.ts", name: "completion packer" },
  },
];

const sdk: readonly Mutant[] = [
  {
    name: "runs a start that may be a repetition without claiming it",
    part: "sdk",
    file: "action-sdk/src/attempt.ts",
    find: "if (delivery.redelivered || start.exclusive) this.#claim(delivery);",
    replace: "if (start.exclusive) this.#claim(delivery);",
    kill: { test: "action-sdk/src/attempt.test.ts" },
    quick: true,
  },
  {
    name: "lets an output pass that breaks the contract",
    part: "sdk",
    file: "action-sdk/src/perform.ts",
    find: 'if (fault === undefined) return { kind: "output", bytes };',
    replace: 'if (fault === undefined || bytes) return { kind: "output", bytes };',
    kill: { test: "action-sdk/src/attempt.test.ts" },
  },
  {
    name: "sends a completion that failed no second time",
    part: "sdk",
    file: "action-sdk/src/completions.ts",
    find: "for (const one of again) this.#send(one);",
    replace: "for (const one of again) this.#failed.add(one);",
    kill: { test: "action-sdk/src/completions.test.ts" },
  },
  {
    name: "reports an error that a handler threw as final",
    part: "sdk",
    file: "action-sdk/src/errors.ts",
    find: 'return failureOf("HANDLER_ERROR", describe(thrown), true);',
    replace: 'return failureOf("HANDLER_ERROR", describe(thrown), false);',
    kill: { test: "action-sdk/src/errors.test.ts" },
  },
  {
    name: "lets a first abort hide that the lease was lost",
    part: "sdk",
    file: "action-sdk/src/context.ts",
    find: 'if (this.#aborted && code !== "LEASE_LOST") return;',
    replace: "if (this.#aborted) return;",
    kill: { test: "action-sdk/src/context.test.ts" },
  },
];

/** Every planted bug. */
export const mutants: readonly Mutant[] = [...engine, ...items, ...pipeline, ...store, ...transport, ...sdk];
