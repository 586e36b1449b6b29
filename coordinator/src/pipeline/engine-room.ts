/** The parts that move runs, put together: pipeline, effects, completions, sweeper, refill, evaluator, recovery. */
import {
  attemptSpanKey,
  type Carrier,
  type CarrierListener,
  type DbClock,
  type Logger,
  type PublishOutcome,
  tracing,
} from "@taskmesh/runtime";
import type { Report, RunEvent } from "../engine/run-event.js";
import type { RunState } from "../engine/run-state.js";
import { Partitions } from "../store/partitions.js";
import type { RunStore } from "../store/run-store.js";
import { type Audit, createAudit } from "./audit.js";
import { type Children, createChildren } from "./children.js";
import { takeCompletions } from "./completions.js";
import { performEffects } from "./effects.js";
import { createEvaluator, type Evaluator } from "./evaluator.js";
import type { Draft } from "./fold.js";
import { createIntake } from "./intake.js";
import { Notices } from "./notices.js";
import { createPipeline, type Pipeline, type PipelineDeps } from "./pipeline.js";
import type { Catalogue, Intake, Launcher, Plans } from "./ports.js";
import { createRecovery, type Recovery } from "./recovery.js";
import { createRefill } from "./refill.js";
import { createReports } from "./reports.js";
import { Results } from "./results.js";
import { createSpans } from "./spans.js";
import { createSweeper } from "./sweeper.js";
import type { Upcast } from "./upcaster.js";
import { Windows } from "./windows.js";
import type { Settled } from "./work.js";

export interface EngineRoomDeps {
  /** For the commits: one connection of its own, so that they never wait for reads of people. */
  commits: RunStore;
  store: RunStore;
  carrier: Pick<Carrier, "publishStart">;
  catalogue: Catalogue;
  plans: Plans;
  clock: DbClock;
  /** Default: none known, so that every batch names the partitioned tables. */
  partitions?: Partitions;
  coordinatorId: string;
  log: Logger;
  meters: EngineMeters;
  /** Default: steps that launch fail to. */
  launcher?: Launcher;
}

/** What is counted; each is called at most once an event. */
export interface EngineMeters {
  settled(settled: Settled): void;
  garbage(): void;
  /** Runs that lost their compare-and-set. */
  conflicts(runs: number): void;
  committed: PipelineDeps["committed"];
  commitFailed: PipelineDeps["commitFailed"];
  written(draft: Draft): void;
  sent(outcome: PublishOutcome): void;
  wiped(): void;
}

export interface EngineRoom {
  intake: Intake;
  notices: Notices;
  results: Results;
  pipeline: Pipeline;
  recovery: Recovery;
  audit: Audit;
  /** Attempts of this coordinator that are under way. */
  dispatched(): number;
  /** What steps of live runs are given, and what upcasters make of it. */
  inputs: Pick<Evaluator, "inputOf" | "upcast">;
  /** What the carrier tells. */
  listener: CarrierListener;
  /** Begins to sweep and refill; the carrier and the registry run already. */
  start(): void;
  /** Stops sweeping and refilling, and commits what was taken in. */
  stop(limitMs: number): Promise<void>;
}

export function createEngineRoom(deps: EngineRoomDeps): EngineRoom {
  const { store, carrier, plans, clock, coordinatorId, log, meters } = deps;
  const nowMs = (): number => clock.now();
  const notices = new Notices();
  const results = new Results();
  const windows = new Windows(deps.catalogue);
  const spans = createSpans();
  const reports = createReports(store, (runId) => notices.notify(runId));

  const submit = (runId: string, event: RunEvent, done: () => void): void => {
    pipeline.submit({ kind: "event", runId, event, fresh: false, tries: 0, bytes: 64, settle: done, fail: done });
  };
  const effects = {
    carrier,
    sent: meters.sent,
    windows,
    notices,
    coordinatorId,
    nowMs,
    redispatch(run: RunState, report: Report, why: string, done: () => void) {
      submit(run.id, { kind: "redispatch", report, why }, done);
    },
    refused(run: RunState, report: Report, why: string, done: () => void) {
      const failure = {
        reason: "DATA_ERROR",
        message: `the start can't be sent: ${why}`,
        retryable: false,
        details: [],
        cause: undefined,
      };
      const event: RunEvent = {
        kind: "complete",
        report,
        outcome: { kind: "failure", failure },
        executionMs: 0,
        session: "",
      };
      submit(run.id, event, done);
    },
    evaluate: (
      run: RunState,
      draft: { plan: Parameters<typeof evaluator.evaluate>[1] },
      stepId: string,
      done: () => void,
    ) => evaluator.evaluate(run, draft.plan, stepId, done),
    ended(draft: Parameters<Results["ended"]>[0]) {
      results.ended(draft);
      spans.ended(draft.write.run, draft.plan.method);
    },
    answered: (draft: Parameters<Results["ended"]>[0]) => results.ended(draft),
    broken: (draft: Parameters<Results["ended"]>[0]) => results.ended(draft),
    traceOf: (run: RunState, report: Report) =>
      run.trace && tracing.announce(run.trace, attemptSpanKey({ runId: run.id, ...report })),
    checkpointOf: (run: RunState, { stepId, item }: Report) => reports.checkpointOf(run.id, stepId, item),
    upcast: (...about: Parameters<Upcast>) => evaluator.upcast(...about),
    wakeAt: (ms: number) => sweeper.wakeAt(ms),
    // Made after the pipeline, which it needs.
    get children(): Children {
      return children;
    },
  };
  const pipeline: Pipeline = createPipeline({
    store: deps.commits,
    coordinatorId,
    clock,
    plans,
    windows,
    partitions: deps.partitions ?? new Partitions(),
    log,
    perform: (draft, confirmed) => performEffects(effects, draft, confirmed),
    settleEnded: (runId, done) => children.settle(runId, done),
    committed: meters.committed,
    commitFailed: meters.commitFailed,
    written(draft) {
      meters.written(draft);
      spans.written(draft);
    },
    conflicts: meters.conflicts,
  });
  const children: Children = createChildren({
    store,
    pipeline,
    plans,
    clock,
    log,
    launcher: deps.launcher,
    traceOf: (run, stepId, item, attempt) => effects.traceOf(run, { stepId, item, attempt, lease: "" }),
  });
  const evaluator = createEvaluator({ store, pipeline, log });
  const sweeper = createSweeper({ store, pipeline, log, nowMs });
  const refill = createRefill({ store, pipeline, catalogue: deps.catalogue, windows, log });
  const recovery = createRecovery({ store, pipeline, log, nowMs, settleEnded: children.settleEnded });
  const audit = createAudit({ store, pipeline, windows, catalogue: deps.catalogue, log, nowMs, children });
  const { upcast } = evaluator;
  const intake = createIntake({ store, pipeline, clock, coordinatorId, reports, catalogue: deps.catalogue, upcast });

  const completions = {
    pipeline,
    log,
    async checkStored(runId: string, stepId: string, value: Parameters<typeof evaluator.checkStored>[3]) {
      const found = (await store.loadRuns([runId])).get(runId);
      if (!found) return undefined;
      const plan = await plans.pinned(found.run.namespaceId, found.method, found.chainVersion, found.contract);
      return evaluator.checkStored(found.run, plan, stepId, value);
    },
    keep: reports.addCheckpoint,
    settled: meters.settled,
    garbage: meters.garbage,
  };

  return {
    intake,
    notices,
    results,
    pipeline,
    recovery,
    audit,
    dispatched: () => windows.size,
    inputs: evaluator,
    listener: {
      onCompletions: (delivery) => takeCompletions(completions, delivery),
      onWiped() {
        meters.wiped();
        void recovery.wiped();
      },
    },
    start() {
      sweeper.start();
      refill.start();
      audit.start();
    },
    async stop(limitMs) {
      audit.stop();
      await Promise.all([sweeper.stop(), refill.stop()]);
      await pipeline.drain(limitMs);
      children.stop();
      await evaluator.stop();
      notices.notifyAll();
    },
  };
}
