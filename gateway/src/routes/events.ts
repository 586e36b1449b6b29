/**
 * `GET /api/v1/runs/{id}/events`: the events of a run as they happen.
 *
 * As server-sent events: `id` is the seq, so a reader that comes back with Last-Event-ID misses nothing; coordinators may die
 * meanwhile (watch.ts). A slow reader slows its own stream down and holds one event in memory; one that reads nothing for a
 * minute is dropped. With `?after_seq=` and no wish for a stream it is one page of JSON, after a wait if there is none yet.
 */
import type { JsonObject } from "@bufbuild/protobuf";
import {
  EventKind,
  type GetRunResponse,
  type Run,
  type RunEvent,
  RunProgress,
  RunServiceService,
} from "@taskmesh/proto";
import { fromServiceError, statusError } from "@taskmesh/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { EventStream } from "../event-stream.js";
import { problemOf } from "../problem.js";
import { header, invalid, Query, runIdOfPath } from "../query.js";
import { render } from "../render.js";
import { isFinal, WAIT_MS_MAX } from "../start.js";
import { watchRun } from "../watch.js";

/** Streams that one gateway holds open. */
const STREAMS_MAX = 2_000;
/** Events in one page of JSON. */
const PAGE_EVENTS_MAX = 500;
/** How long a page waits for the next event once it has one. */
const PAGE_QUIET_MS = 100;

/** Registers the route. */
export function eventRoutes(app: FastifyInstance, context: GatewayContext): void {
  let streams = 0;
  app.get("/api/v1/runs/:runId/events", async (request, reply) => {
    const query = new Query(request, ["afterSeq", "wait"]);
    const watched = await open(context, request, query);
    if (!wantsStream(request, query))
      return page(context, request, watched, query.durationMs("wait", WAIT_MS_MAX) ?? 0);
    // 204 is what tells an EventSource to stay away: there is nothing more to come.
    if (watched.isOver) return reply.code(204).send();
    if (streams >= STREAMS_MAX) {
      const message = `the gateway holds its ${STREAMS_MAX} event streams already`;
      throw statusError({ reason: "LIMIT_EXCEEDED", message, retryAfterMs: 5_000 });
    }
    streams++;
    try {
      await stream(context, request, reply, watched);
    } finally {
      streams--;
    }
    return reply;
  });
}

interface Watched {
  run: Run;
  afterSeq: bigint;
  /** The run has ended and the reader has seen all of it. */
  isOver: boolean;
  methodOf(stepId: string): string;
}

/** Looks the run up first: a refusal can still become a proper answer. */
async function open(context: GatewayContext, request: FastifyRequest, query: Query): Promise<Watched> {
  const namespace = context.namespaceOf(request);
  const filter = { namespace, runId: runIdOfPath(request), omitPayloads: true };
  const afterSeq = readSeq(query, request);
  const answer = await context.upstream.call(RunServiceService.getRun, filter, context.callOptions(request));
  const run = runOf(answer);
  const methods = new Map(answer.steps.map((step) => [step.stepId, step.method]));
  const isOver = isFinal(run.status) && afterSeq >= run.lastSeq;
  return { run, afterSeq, isOver, methodOf: (stepId) => methods.get(stepId) ?? run.method };
}

function runOf({ run }: GetRunResponse): Run {
  if (run === undefined) throw new Error("GetRun answered without a run");
  return run;
}

/** Last-Event-ID, which a reconnecting EventSource sends, counts more than the address that it was opened with. */
function readSeq(query: Query, request: FastifyRequest): bigint {
  const given = header(request, "last-event-id") || query.text("afterSeq") || "0";
  if (/^\d{1,18}$/.test(given)) return BigInt(given);
  throw invalid("afterSeq", "expected the seq of an event, a number from 0");
}

function wantsStream(request: FastifyRequest, query: Query): boolean {
  const accept = header(request, "accept") ?? "";
  if (accept.includes("text/event-stream")) return true;
  const isPage = query.text("afterSeq") !== undefined || query.text("wait") !== undefined;
  return !isPage && !accept.includes("application/json");
}

async function stream(
  context: GatewayContext,
  request: FastifyRequest,
  reply: FastifyReply,
  watched: Watched,
): Promise<void> {
  const { run, afterSeq } = watched;
  const events = new EventStream(reply, context.stopping);
  const { namespace, runId } = run;
  const watch = { namespace, runId, afterSeq, signal: events.closed, headers: request.traceHeaders };
  try {
    for await (const { event, progress } of watchRun(context.upstream, watch)) {
      if (progress) await events.sendProgress(render("RunProgress", RunProgress, progress));
      else await events.send(String(event.seq), await toJson(context, request, watched, event));
    }
  } catch (cause) {
    if (events.closed.aborted) return;
    const error = fromServiceError(cause);
    context.log.error({ err: error, run_id: runId }, "event stream failed");
    await events.sendProblem(problemOf(error));
  } finally {
    events.end();
  }
}

/** A view per event: each has the whole budget for its one payload. */
function toJson(
  context: GatewayContext,
  request: FastifyRequest,
  { run, methodOf }: Watched,
  event: RunEvent,
): Promise<JsonObject> {
  return context.view(request).event(run, event, methodOf);
}

async function page(
  context: GatewayContext,
  request: FastifyRequest,
  watched: Watched,
  waitMs: number,
): Promise<JsonObject> {
  const { run, afterSeq } = watched;
  const events: RunEvent[] = [];
  let isEnded = watched.isOver;
  const full = new AbortController();
  const { signal } = full;
  const close = () => full.abort();
  for (const other of [request.clientGone, context.stopping]) other.addEventListener("abort", close);
  // Without a wait there is still time for what is already there.
  let timer = setTimeout(close, Math.max(waitMs, PAGE_QUIET_MS));
  try {
    const watch = { namespace: run.namespace, runId: run.runId, afterSeq, signal, headers: request.traceHeaders };
    if (!isEnded) {
      for await (const { event } of watchRun(context.upstream, watch)) {
        if (event === undefined) continue;
        events.push(event);
        isEnded = event.kind === EventKind.EVENT_KIND_RUN_ENDED;
        if (events.length >= PAGE_EVENTS_MAX) break;
        clearTimeout(timer);
        timer = setTimeout(close, PAGE_QUIET_MS);
      }
    }
  } finally {
    clearTimeout(timer);
    for (const other of [request.clientGone, context.stopping]) other.removeEventListener("abort", close);
  }
  const view = context.view(request);
  return {
    events: await Promise.all(events.map((event) => view.event(run, event, watched.methodOf))),
    nextAfterSeq: String(events.at(-1)?.seq ?? afterSeq),
    ended: isEnded,
  };
}
