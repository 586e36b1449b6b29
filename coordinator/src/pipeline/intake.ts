/** The calls of the rpc services as work for the pipeline. */
import { createHash } from "node:crypto";
import { IdempotencyKeyReused, RunEnded, RunStatus, type StartStep } from "@taskmesh/proto";
import { type DbClock, status, statusDetail, statusError, uuidv7 } from "@taskmesh/runtime";
import type { Effect, RunEvent } from "../engine/run-event.js";
import { inFlight, type RunState, type StepState, someState, stateOf } from "../engine/run-state.js";
import type { RunStore } from "../store/run-store.js";
import { startNamed } from "./custom-ids.js";
import { toStartStep } from "./effects.js";
import { refusedOperation } from "./operated.js";
import type { Pipeline } from "./pipeline.js";
import type { AttemptRef, BindVerdict, Catalogue, Intake, StartCommand } from "./ports.js";
import type { Reports } from "./reports.js";
import { assignmentAnswer, sendAnswer } from "./send-answer.js";
import type { Upcast } from "./upcaster.js";
import type { Settled, StartWork } from "./work.js";

export interface IntakeDeps {
  store: RunStore;
  pipeline: Pipeline;
  clock: DbClock;
  coordinatorId: string;
  reports: Reports;
  catalogue: Pick<Catalogue, "upcastFor">;
  upcast: Upcast;
}

type BindEvent = Extract<RunEvent, { kind: "bind" }>;

/** Times that an answer to a taken idempotency key is looked for: its row commits a moment after it wins. */
const keyReadsMax = 5;

export function createIntake(deps: IntakeDeps): Intake {
  const event = (runId: string, about: RunEvent, namespaceId?: number, bytes = 0): Promise<Settled> =>
    new Promise((settle, fail) => {
      deps.pipeline.submit({
        kind: "event",
        runId,
        event: about,
        ...(namespaceId === undefined ? {} : { namespaceId }),
        fresh: false,
        tries: 0,
        bytes: 256 + bytes,
        settle,
        fail,
      });
    });

  const bind = async (
    ref: AttemptRef,
    session: string,
    startedAtMs: number,
    sinceReportMs: number,
    asked: Pick<BindEvent, "checkpointed" | "startToCloseMs">,
  ): Promise<BindVerdict> => {
    const settled = await event(ref.runId, {
      kind: "bind",
      report: ref,
      session,
      startedAtMs,
      sinceReportMs,
      ...asked,
    });
    if (settled.verdict === "unknown-run") return "stale";
    if (settled.verdict === "unchanged" && settled.why === "cancelling") return "cancelling";
    if (settled.verdict === "unchanged" && settled.why !== "already-bound") return "stale";
    const held = (s: StepState): boolean => inFlight(s.status) && s.lease === ref.lease && s.session === session;
    if (!someState(settled.run, ref.item, held) || settled.run.endedAtMs > 0) return "stale";
    return settled.run.cancel ? "cancelling" : "current";
  };

  const send: Intake["send"] = async (namespaceId, runId, message) => {
    const settled = await event(runId, { kind: "message", ...message }, namespaceId, message.value.bytes?.length);
    return sendAnswer(settled, runId, message);
  };

  return {
    newRunId: () => uuidv7(deps.clock.now()),

    async startRun(command) {
      const started = command.customId
        ? await startNamed(deps, command, command.customId, (asked) => submitStart(deps, asked))
        : await startRun(deps, command);
      // A run that exists gets the message as any other does; a new one has it from its first commit.
      if (command.message && started.existing) await send(command.namespaceId, started.runId, command.message);
      return started;
    },

    async cancelRun(namespaceId, runId, reason, more = {}) {
      const settled = await event(runId, { kind: "cancel", reason, ...more }, namespaceId);
      if (settled.verdict === "unknown-run") throw runNotFound(runId);
      if (settled.verdict === "changed" || settled.why === "applied") return "changed";
      if (more.id !== undefined && settled.run.operation === more.id) return "changed";
      if (settled.why === "cancelling" || settled.run.status === RunStatus.RUN_STATUS_CANCELLED) return "unchanged";
      throw runEnded(settled.run);
    },

    send,

    async assignment(namespaceId, runId, about) {
      const bytes = about.act.kind === "complete" ? about.act.value.bytes?.length : 0;
      const settled = await event(runId, { kind: "assignment", ...about }, namespaceId, bytes);
      return assignmentAnswer(settled, runId, about.stepId);
    },

    async operate(namespaceId, runId, about) {
      const settled = await event(runId, about, namespaceId);
      if (settled.verdict === "unknown-run") throw runNotFound(runId);
      return settled.verdict === "changed" ? "changed" : refusedOperation(settled, about.operation);
    },

    async bind(ref, sessionId, startedAtMs, sinceReportMs, report, startToCloseMs): Promise<BindVerdict> {
      const verdict = await bind(ref, sessionId, startedAtMs, sinceReportMs, {
        ...(report?.checkpoint ? { checkpointed: true as const } : {}),
        ...(startToCloseMs ? { startToCloseMs } : {}),
      });
      // The lease was checked: what its holder says of the attempt is true.
      if (report && verdict !== "stale") await deps.reports.add(ref, report);
      return verdict;
    },

    async lose(ref, why) {
      await event(ref.runId, { kind: "lose", report: ref, why });
    },

    async claim(ref, sessionId) {
      const settled = await event(ref.runId, { kind: "claim", report: ref, session: sessionId });
      return claimAnswer(deps, ref, sessionId, settled);
    },
  };
}

async function startRun(deps: IntakeDeps, command: StartCommand): Promise<{ runId: string; existing: boolean }> {
  const runId = command.runId ?? uuidv7(deps.clock.now());
  const requestHash = command.idempotencyKey === undefined ? undefined : hashRequest(command);
  const outcome = await submitStart(deps, { runId, command, ...(requestHash ? { requestHash } : {}) });
  // Its own id: an earlier try of this very start, whose outcome was unknown, has come about.
  if (outcome !== "taken") return { runId: outcome, existing: outcome !== runId };
  return existingRun(deps, command, requestHash!, runId);
}

/** Answers the id of the run that is there now, or that something which only one run can have is another's. */
function submitStart({ pipeline }: IntakeDeps, asked: Pick<StartWork, "runId" | "command" | "requestHash">) {
  return new Promise<string>((resolve, fail) => {
    pipeline.submit({
      kind: "start",
      ...asked,
      tries: 0,
      bytes: 512 + (asked.command.input.bytes?.length ?? 0) + (asked.command.keptBytes ?? 0),
      settle: () => resolve(asked.runId),
      taken: () => resolve("taken"),
      existing: resolve,
      fail,
    });
  });
}

/** The run that the key already started, if it was asked for the same. */
async function existingRun(deps: IntakeDeps, command: StartCommand, requestHash: Uint8Array, runId: string) {
  const key = command.idempotencyKey!;
  for (let read = 0; read < keyReadsMax; read++) {
    const found = await deps.store.findByKey(command.namespaceId, key);
    if (!found) continue;
    // Its own id: an earlier try of this very start, whose outcome was unknown, has won the key.
    if (Buffer.compare(found.requestHash, requestHash) === 0)
      return { runId: found.runId, existing: found.runId !== runId };
    throw statusError({
      code: status.ALREADY_EXISTS,
      reason: "IDEMPOTENCY_KEY_REUSED",
      message: "the idempotency key was used before with another method or input; use a new key",
      details: [statusDetail("taskmesh.v1.IdempotencyKeyReused", IdempotencyKeyReused, { runId: found.runId })],
    });
  }
  throw statusError({
    code: status.UNAVAILABLE,
    reason: "DATABASE_UNAVAILABLE",
    message: "the run of the idempotency key can't be read now; try again with the same key",
    retryAfterMs: 500,
  });
}

/** What must be equal for two starts to be one: the callable and the input, by value. */
export function hashRequest({ input, plan, from }: Pick<StartCommand, "input" | "plan" | "from">): Uint8Array {
  const hash = createHash("sha256").update(`${plan.method}\n${input.sizeBytes}\n`).update(input.sha256);
  if (from) hash.update(from.hash);
  return hash.digest();
}

type Dispatch = Extract<Effect, { kind: "dispatch" }>;

async function claimAnswer(
  deps: IntakeDeps,
  ref: AttemptRef,
  sessionId: string,
  settled: Settled,
): Promise<{ start: StartStep } | { drop: string }> {
  if (settled.verdict === "unknown-run") return { drop: "no such run" };
  if (settled.verdict === "unchanged") return { drop: dropMessage(settled) };
  const given = settled.effects.find(
    (e): e is Dispatch => e.kind === "dispatch" && e.claimed && e.step.id === ref.stepId && (e.item ?? 0) === ref.item,
  );
  const { run } = settled;
  if (!given || stateOf(run, given.step.index, ref.item)?.lease !== given.lease) return { drop: "the step has ended" };
  const checkpoint = given.resume && (await deps.reports.checkpointOf(run.id, ref.stepId, ref.item));
  const { method, contract } = given.step;
  const upcast = await deps.catalogue.upcastFor?.(sessionId, run.namespaceId, `${method}@${contract}`);
  const input = upcast && (await deps.upcast(run, upcast, given.input));
  // The attempt is the session's: unlisted, it is given out again, and fails where its first start is made.
  if (input && input.kind !== "value") return { drop: "the input can't be made one for this worker" };
  const effect = input ? { ...given, input: input.value } : given;
  return { start: toStartStep(run, effect, deps.coordinatorId, deps.clock.now(), checkpoint) };
}

function dropMessage(settled: Extract<Settled, { verdict: "unchanged" }>): string {
  switch (settled.why) {
    case "already-bound":
      return "another session runs the attempt";
    case "run-ended":
      return "the run has ended";
    case "cancelling":
      return "the run is being cancelled";
    default:
      return "the lease was superseded";
  }
}

/** NOT_FOUND for a run that is not in the caller's namespace. */
export function runNotFound(runId: string) {
  return statusError({
    code: status.NOT_FOUND,
    reason: "RUN_NOT_FOUND",
    message: `there is no run ${printable(runId)} in the namespace`,
  });
}

/** FAILED_PRECONDITION for a run whose status is final. */
export function runEnded(run: RunState) {
  const name = RunStatus[run.status]?.replace("RUN_STATUS_", "") ?? String(run.status);
  return statusError({
    code: status.FAILED_PRECONDITION,
    reason: "RUN_ENDED",
    message: `the run has ended: ${name}`,
    details: [statusDetail("taskmesh.v1.RunEnded", RunEnded, { runId: run.id, status: name })],
  });
}

const printable = (text: string): string => JSON.stringify(text.slice(0, 64));
