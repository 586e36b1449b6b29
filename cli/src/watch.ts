/**
 * Follows a run until it ends: redrawn in place on a terminal, one line an event elsewhere, one JSON document an event for programs.
 */
import { problemError } from "./api.js";
import { CliError, exitCode } from "./exit.js";
import type { JsonObject } from "./json.js";
import type { Output } from "./output.js";
import { applyEvent, describeEvent, drawProgress, progressOfRun, type RunProgress } from "./progress.js";
import type { Session } from "./session.js";
import { isFinal } from "./show.js";

/** Often enough for a clock that counts seconds, seldom enough to cost nothing. */
const redrawMs = 200;
/** A stream that ends while its run goes on is opened again after this long. */
const reopenMs = 500;

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

/** Prints the picture as `out` allows: live, as lines, or as JSON documents. */
function reporter(out: Output, progress: RunProgress) {
  const { live, width } = out.terminal;
  if (out.json) return { event: (event: JsonObject) => out.document(event), end: () => {} };
  if (!live) return { event: (event: JsonObject) => out.line(describeEvent(event)), end: () => {} };
  const picture = createLivePicture(out.raw);
  const draw = () => picture.draw(drawProgress(progress, Date.now(), out.colors, width));
  draw();
  const timer = setInterval(draw, redrawMs);
  return {
    event: () => {},
    end: () => {
      clearInterval(timer);
      draw();
      picture.finish();
    },
  };
}

/**
 * Watches a run to its end and returns how it ended.
 * @throws CliError (notFound) for an unknown run; (unreachable) when the mesh stays away.
 */
export async function watchRun(session: Session, runId: string, signal?: AbortSignal): Promise<RunProgress> {
  const { api, out } = session;
  const path = `/api/v1/runs/${encodeURIComponent(runId)}`;
  const progress = progressOfRun(await api.call("GET", path, { query: { omitPayloads: true } }));
  const endedBefore = isFinal(progress.status);
  const report = reporter(out, progress);
  try {
    for (let ended = false; !ended && !signal?.aborted; ) {
      const from = progress.seq === "0" ? {} : { after: progress.seq };
      for await (const event of api.events(`${path}/events`, signal ? { ...from, signal } : from)) {
        if (event.event === "problem") throw streamProblem(event.data, session);
        const parsed = parseEvent(event.data);
        if (parsed.kind === undefined) continue;
        ended = applyEvent(progress, parsed);
        report.event(parsed);
        if (ended) break;
      }
      if (ended || endedBefore) break;
      await new Promise((resolve) => setTimeout(resolve, reopenMs));
    }
  } finally {
    report.end();
  }
  return progress;
}
