/**
 * What a watcher knows of a run, folded from its events, and how it is drawn. Pure: time arrives as an argument.
 *
 * The first picture comes from the run itself (its steps, pending ones included), every change after it from an event; events that
 * the first picture already contains change nothing, because each sets a state rather than adding to one.
 */
import { type Json, type JsonObject, object, objects, text } from "./json.js";
import { type Colors, plain } from "./output.js";
import { bareStatus, isFinal, paintStatus, showDuration, showFailure, showItems } from "./show.js";

export interface StepProgress {
  id: string;
  method: string;
  status: string;
  attempt: number;
  startedAtMs?: number;
  endedAtMs?: number;
  failure: string;
  /** What the handler reported last, while it runs: "40 % half-way". */
  report: string;
  /** The same as a number, 0 if nothing was reported. */
  percent: number;
  /** It follows from how long the action took before. */
  estimated: boolean;
  /** A fan-out: where its items stand. */
  items: string;
}

export interface RunProgress {
  runId: string;
  method: string;
  status: string;
  acceptedAtMs?: number;
  endedAtMs?: number;
  failure: string;
  /** Seq of the newest event folded in, as the cursor of the stream. */
  seq: string;
  steps: Map<string, StepProgress>;
}

const number = (value: Json | undefined): number => Number(value ?? 0);
const instant = (value: Json | undefined): number | undefined => {
  const ms = Date.parse(text(value));
  return Number.isNaN(ms) ? undefined : ms;
};

function assignTimes(target: { startedAtMs?: number; endedAtMs?: number }, started?: number, ended?: number): void {
  if (started !== undefined) target.startedAtMs = started;
  if (ended !== undefined) target.endedAtMs = ended;
}

function showReport(value: Json | undefined): string {
  const { percent, message, estimated } = object(value);
  const about = estimated === true ? "~" : "";
  return [Number(percent) > 0 ? `${about}${Math.round(Number(percent))} %` : "", plain(text(message))].join(" ").trim();
}

/** Takes over what handlers reported: reports are no events, so a watcher asks for them now and then. */
export function applyReports(progress: RunProgress, answer: JsonObject): void {
  for (const one of objects(answer.steps)) {
    const step = progress.steps.get(text(one.stepId));
    if (!step || step.status !== bareStatus(one.status)) continue;
    takeReport(step, one.progress);
    takeItems(step, one.items);
  }
}

/** Takes over a progress notice of the event stream. */
export function applyNotice(progress: RunProgress, notice: JsonObject): void {
  for (const one of objects(notice.steps)) {
    const step = progress.steps.get(text(one.stepId));
    if (step?.status !== "RUNNING" || number(one.item) > 0) continue;
    takeReport(step, one.progress);
  }
}

function takeReport(step: StepProgress, report: Json | undefined): void {
  step.report = showReport(report);
  step.percent = number(object(report).percent);
  step.estimated = object(report).estimated === true;
}

function takeItems(step: StepProgress, items: Json | undefined): void {
  const { total, succeeded, failed } = object(items);
  step.items = showItems(items);
  if (number(total) > 0) step.percent = (100 * (number(succeeded) + number(failed))) / number(total);
}

/** How far the run is, 0 to 100: steps that are over, and what the running ones reported. */
export function percentOf(progress: RunProgress): number {
  const steps = [...progress.steps.values()];
  const share = (step: StepProgress): number =>
    stepFinal.test(step.status) ? 1 : step.status === "RUNNING" ? step.percent / 100 : 0;
  return (steps.reduce((sum, step) => sum + share(step), 0) / Math.max(1, steps.length)) * 100;
}

const barWidth = 20;

/** Only an end is 100 %: handlers may say that they are done before. */
const barPercentMax = 99;

function drawBar(progress: RunProgress): string {
  const percent = Math.min(barPercentMax, Math.floor(percentOf(progress)));
  const full = Math.floor((percent / 100) * barWidth);
  const about = [...progress.steps.values()].some(({ status, estimated }) => status === "RUNNING" && estimated);
  return `[${"█".repeat(full)}${"░".repeat(barWidth - full)}] ${about ? "~" : ""}${percent} %`;
}

/** The picture that GET /api/v1/runs/{id} gives. */
export function progressOfRun(answer: JsonObject): RunProgress {
  const run = object(answer.run ?? answer);
  const progress: RunProgress = {
    runId: text(run.runId),
    method: text(run.method),
    status: bareStatus(run.status),
    failure: showFailure(run.failure),
    seq: "0",
    steps: new Map(),
  };
  const acceptedAtMs = instant(run.acceptedAt);
  const endedAtMs = instant(run.endedAt);
  if (acceptedAtMs !== undefined) progress.acceptedAtMs = acceptedAtMs;
  if (endedAtMs !== undefined) progress.endedAtMs = endedAtMs;
  for (const one of objects(answer.steps)) {
    const step: StepProgress = {
      id: text(one.stepId),
      method: text(one.method),
      status: bareStatus(one.status),
      attempt: number(one.attempt),
      failure: showFailure(one.failure),
      report: showReport(one.progress),
      percent: number(object(one.progress).percent),
      estimated: object(one.progress).estimated === true,
      items: "",
    };
    takeItems(step, one.items);
    assignTimes(step, instant(one.startedAt), instant(one.endedAt));
    progress.steps.set(step.id, step);
  }
  return progress;
}

/** Statuses that an event's kind gives to the step that it names; the rest come as `moves`. */
const statusOfKind: Record<string, string> = {
  STEP_READY: "READY",
  STEP_DISPATCHED: "DISPATCHED",
  STEP_BOUND: "RUNNING",
  ATTEMPT_CLAIMED: "RUNNING",
  STEP_SUCCEEDED: "SUCCEEDED",
  ATTEMPT_FAILED: "RETRYING",
  ATTEMPT_LOST: "RETRYING",
  ATTEMPT_TIMED_OUT: "RETRYING",
  STEP_FAILED: "FAILED",
  STEP_SKIPPED: "SKIPPED",
  STEP_CANCELLED: "CANCELLED",
  STEP_EXPIRED: "EXPIRED",
};

const stepFinal = /^(SUCCEEDED|FAILED|SKIPPED|CANCELLED|EXPIRED)$/;

function moveStep(progress: RunProgress, id: string, status: string, attempt: number, atMs: number | undefined): void {
  const step = progress.steps.get(id) ?? {
    id,
    method: "",
    status: "PENDING",
    attempt: 0,
    failure: "",
    report: "",
    percent: 0,
    estimated: false,
    items: "",
  };
  progress.steps.set(id, step);
  if (step.status !== status) {
    step.report = "";
    step.percent = 0;
    step.estimated = false;
  }
  step.status = status;
  if (attempt > 0) step.attempt = attempt;
  if (atMs === undefined) return;
  if (status === "DISPATCHED") step.startedAtMs ??= atMs;
  if (stepFinal.test(status)) step.endedAtMs = atMs;
}

/** Folds one RunEvent in. Returns whether the run has ended. */
export function applyEvent(progress: RunProgress, event: JsonObject): boolean {
  const kind = bareStatus(event.kind);
  const atMs = instant(event.at);
  progress.seq = text(event.seq) || String(event.seq ?? progress.seq);
  const stepId = text(event.stepId);
  const known = progress.steps.get(stepId);
  if (kind === "ITEMS_OPENED" && known) known.items ||= "items";
  // What happens to an item does not happen to its step.
  const ofItem = known !== undefined && known.items !== "" && !/^STEP_(SUCCEEDED|FAILED|CANCELLED)$/.test(kind);
  const status = ofItem ? "RUNNING" : statusOfKind[kind];
  if (stepId !== "" && status !== undefined) {
    moveStep(progress, stepId, status, number(event.attempt), atMs);
    const failure = showFailure(event.failure);
    const step = progress.steps.get(stepId);
    if (step) step.failure = status === "SUCCEEDED" ? "" : failure || step.failure;
  }
  for (const move of objects(event.moves)) {
    moveStep(progress, text(move.stepId), bareStatus(move.status), number(move.attempt), atMs);
  }
  if (kind === "RUN_ACCEPTED" && atMs !== undefined) progress.acceptedAtMs = atMs;
  if (/^RUN_(PAUSED|RESUMED|BROKEN)$/.test(kind)) progress.status = bareStatus(event.runStatus);
  if (kind === "STEP_RETRIED" || kind === "STEP_OVERRIDDEN") progress.status = "RUNNING";
  if (kind !== "RUN_ENDED") return false;
  progress.status = bareStatus(event.runStatus);
  progress.failure = showFailure(event.failure) || progress.failure;
  if (atMs !== undefined) progress.endedAtMs = atMs;
  return true;
}

const sign = (status: string): string => {
  switch (status) {
    case "SUCCEEDED":
      return "✓";
    case "FAILED":
    case "EXPIRED":
      return "✗";
    case "RUNNING":
    case "DISPATCHED":
      return "●";
    case "RETRYING":
      return "↻";
    case "SKIPPED":
    case "CANCELLED":
      return "-";
    default:
      return "·";
  }
};

const cut = (line: string, width: number | undefined): string =>
  width === undefined || line.length <= width ? line : `${line.slice(0, Math.max(0, width - 1))}…`;

/** Colours the status word of a line that has its final length already. */
const paintLine = (line: string, status: string, colors: Colors): string =>
  line.replace(status, paintStatus(status, colors));

/** Steps that fit into `rows`: those that are under way or went wrong before those that wait, and those before what is done. */
function selectSteps(steps: StepProgress[], rows: number): StepProgress[] {
  if (steps.length <= rows) return steps;
  const rank = ({ status }: StepProgress): number => {
    if (/^(SUCCEEDED|SKIPPED)$/.test(status)) return 2;
    return /^(PENDING|READY)$/.test(status) ? 1 : 0;
  };
  const chosen = new Set([...steps].sort((a, b) => rank(a) - rank(b)).slice(0, Math.max(0, rows - 1)));
  return steps.filter((step) => chosen.has(step));
}

const took = (from: number | undefined, to: number): string => (from === undefined ? "" : showDuration(to - from));

function drawStep(step: StepProgress, idWidth: number, nowMs: number): string {
  const parts = [
    ` ${sign(step.status)} ${plain(step.id).padEnd(idWidth)}`,
    step.status.padEnd(10),
    took(step.startedAtMs, step.endedAtMs ?? nowMs).padEnd(8),
    step.attempt > 1 ? `attempt ${step.attempt}` : "",
    step.failure || step.report || step.items,
  ];
  return parts.join("  ").trimEnd();
}

/**
 * The picture as lines: the run first, then a line a step. It never exceeds `size`: redrawn in place, a line or row too many would
 * scatter it over the terminal.
 */
export function drawProgress(
  progress: RunProgress,
  nowMs: number,
  colors: Colors,
  size: { width?: number | undefined; height?: number | undefined } = {},
): string[] {
  const { width, height } = size;
  const steps = [...progress.steps.values()];
  const done = steps.filter((step) => stepFinal.test(step.status)).length;
  const head = [
    progress.method,
    progress.runId,
    progress.status,
    took(progress.acceptedAtMs, progress.endedAtMs ?? nowMs),
    steps.length > 0 ? `${done}/${steps.length} steps` : "",
    steps.length > 0 && !isFinal(progress.status) ? drawBar(progress) : "",
  ].filter((part) => part !== "");
  const lines = [paintLine(cut(plain(head.join("  ")), width), progress.status, colors)];
  const tail = progress.failure === "" ? [] : [colors.red(cut(`  ${progress.failure}`, width))];
  // One row stays free: the cursor rests on it.
  const shown = height === undefined ? steps : selectSteps(steps, Math.max(1, height - 2 - tail.length));
  const idWidth = Math.max(0, ...shown.map((step) => step.id.length));
  for (const step of shown) lines.push(paintLine(cut(drawStep(step, idWidth, nowMs), width), step.status, colors));
  if (shown.length < steps.length) lines.push(colors.dim(`   and ${steps.length - shown.length} more steps`));
  return [...lines, ...tail];
}

/** One event as one line, for pipes and logs. */
export function describeEvent(event: JsonObject): string {
  const attempt = number(event.attempt);
  const failure = showFailure(event.failure);
  const [note, actor] = [plain(text(event.note)), plain(text(event.actor))];
  const parts = [
    text(event.at),
    bareStatus(event.kind).toLowerCase().replaceAll("_", " "),
    plain(text(event.stepId)),
    number(event.item) > 0 ? `item ${number(event.item)}` : "",
    attempt > 1 ? `attempt ${attempt}` : "",
    event.runStatus === undefined ? "" : bareStatus(event.runStatus),
    failure,
    // The reason that somebody gave for ending a run is its failure's message already.
    failure.includes(note) ? "" : note,
    actor === "" ? "" : `by ${actor}`,
  ];
  return parts.filter((part) => part !== "" && part !== "UNSPECIFIED").join("  ");
}
