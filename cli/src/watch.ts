/**
 * Follows a run until it ends: redrawn in place on a terminal, one line an event elsewhere, one JSON document an event for programs.
 */
import { problemError } from "./api.js";
import { CliError, exitCode } from "./exit.js";
import type { JsonObject } from "./json.js";
import {
  applyEvent,
  applyNotice,
  applyReports,
  describeEvent,
  drawProgress,
  progressOfRun,
  type RunProgress,
} from "./progress.js";
import type { Session } from "./session.js";
import { isFinal } from "./show.js";

/** Often enough for a clock that counts seconds, seldom enough to cost nothing. */
const redrawMs = 200;
/** A stream that ends while its run goes on is opened again after this long. */
const reopenMs = 500;
/** What handlers report is asked for this often. */
const reportsMs = 1_000;
/** Exit code of a program that Ctrl-C ended, as shells have it. */
const interruptedCode = 130;

/** Draws lines over the ones drawn before. */
export interface LivePicture {
  draw(lines: string[]): void;
  /** Leaves the last picture standing. */
  finish(): void;
}

/** A picture that is redrawn in place through `write`. */
export function createLivePicture(write: (text: string) => void): LivePicture {
  let height = 0;
  return {
    draw(lines) {
      const up = height > 0 ? `\u001b[${height}A` : "";
      // Clear to the end of each line, then everything below: the picture may have shrunk.
      write(`${up}\r${lines.map((line) => `${line}\u001b[K\n`).join("")}\u001b[J`);
      height = lines.length;
    },
    finish() {
      height = 0;
    },
  };
}

function parseEvent(data: string): JsonObject {
  try {
    const value = JSON.parse(data) as JsonObject;
    // A stream may wrap the event as the rpc does.
    return (value.event !== undefined && value.seq === undefined ? value.event : value) as JsonObject;
  } catch (cause) {
    throw new CliError(exitCode.unreachable, "the event stream holds something that is not an event", { cause });
  }
}

/** Why the mesh ended the stream although the run goes on. */
function streamProblem(data: string, { api }: Session): CliError {
  const problem = parseEvent(data);
  return problemError(Number(problem.status ?? 503), problem, api.connection);
}

interface Reporter {
  event(event: JsonObject): void;
  /** What handlers report, or what is estimated: no event of the history. */
  notice(notice: JsonObject): void;
  end(): void;
}

/** Prints the picture as `out` allows: live, as lines, or as JSON documents. */
function createReporter({ api, out }: Session, path: string, progress: RunProgress): Reporter {
  const nothing = () => {};
  if (out.json)
    return { event: (event) => out.document(event), notice: (progress) => out.document({ progress }), end: nothing };
  if (!out.terminal.live) return { event: (event) => out.line(describeEvent(event)), notice: nothing, end: nothing };
  const picture = createLivePicture(out.raw);
  const draw = () => picture.draw(drawProgress(progress, Date.now(), out.colors, out.terminal));
  draw();
  const drawing = setInterval(draw, redrawMs);
  const asking = setInterval(() => {
    // What handlers report is decoration: a call that fails costs nothing but a stale line.
    api.call("GET", path, { query: { omitPayloads: true } }).then(
      (answer) => applyReports(progress, answer),
      () => {},
    );
  }, reportsMs);
  return {
    event: nothing,
    notice: nothing,
    end: () => {
      clearInterval(drawing);
      clearInterval(asking);
      draw();
      picture.finish();
    },
  };
}

/** Folds events in until the run ends; opens the stream again when the mesh closes it before. */
async function follow(session: Session, path: string, progress: RunProgress, reporter: Reporter): Promise<void> {
  const endedBefore = isFinal(progress.status);
  for (;;) {
    const from = progress.seq === "0" ? {} : { after: progress.seq };
    for await (const event of session.api.events(`${path}/events`, from)) {
      if (event.event === "problem") throw streamProblem(event.data, session);
      const parsed = parseEvent(event.data);
      if (event.event === "progress") {
        applyNotice(progress, parsed);
        reporter.notice(parsed);
      }
      if (parsed.kind === undefined) continue;
      const ended = applyEvent(progress, parsed);
      reporter.event(parsed);
      if (ended) return;
    }
    if (endedBefore) return;
    await new Promise((resolve) => setTimeout(resolve, reopenMs));
  }
}

/**
 * Watches a run to its end and returns how it ended. Ctrl-C ends the program, not the run.
 * @throws CliError (notFound) for an unknown run; (unreachable) when the mesh stays away.
 */
export async function watchRun(session: Session, runId: string): Promise<RunProgress> {
  const path = `/api/v1/runs/${encodeURIComponent(runId)}`;
  const progress = progressOfRun(await session.api.call("GET", path, { query: { omitPayloads: true } }));
  const reporter = createReporter(session, path, progress);
  const leave = () => {
    reporter.end();
    session.out.note(`The run goes on. See it again with: taskmesh runs watch ${runId}`);
    process.exit(interruptedCode);
  };
  process.once("SIGINT", leave);
  try {
    await follow(session, path, progress, reporter);
  } finally {
    process.off("SIGINT", leave);
    reporter.end();
  }
  return progress;
}
