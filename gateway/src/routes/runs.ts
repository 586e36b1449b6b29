/** Runs: start, list, show, result, cancel, logs. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import {
  CancelRunRequest,
  GetLogsResponse,
  type GetResultResponse,
  type ListRunsRequest,
  RunServiceService,
  RunStatus,
  runStatusToJSON,
  Signal,
  StartRunRequest,
} from "@taskmesh/proto";
import {
  isJsonObject,
  isStatusError,
  type JsonPath,
  nearestName,
  shorten,
  status,
  statusError,
} from "@taskmesh/runtime";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { decodeBody } from "../body.js";
import type { GatewayContext } from "../context.js";
import { PAYLOAD_BYTES_MAX, payloadToJson, readPayload } from "../payloads.js";
import { checkMethod, header, invalid, parseDurationMs, Query, refuseQuery, runIdOfPath } from "../query.js";
import { failureToJson, render } from "../render.js";
import { readSignal, sendSignal } from "../signals.js";
import { type JsonInput, readJsonBody, startRun, WAIT_MS_MAX, waitForResult } from "../start.js";

const PAGE_SIZE_MAX = 1_000;

/** Registers the routes. */
export function runRoutes(app: FastifyInstance, context: GatewayContext): void {
  app.post("/api/v1/runs", { bodyLimit: PAYLOAD_BYTES_MAX }, (request, reply) => start(context, request, reply));
  app.get("/api/v1/runs", (request) => list(context, request));
  app.get("/api/v1/runs/:runId", (request) => show(context, request));
  app.get("/api/v1/runs/:runId/steps/:stepId/items", (request) => items(context, request));
  app.get("/api/v1/runs/:runId/steps/:stepId/:side", (request) => stepPayload(context, request));
  app.get("/api/v1/runs/:runId/result", (request) => result(context, request));
  app.get("/api/v1/runs/:runId/logs", (request) => logs(context, request));
  app.post("/api/v1/runs/:runId/signals", (request) => signal(context, request));
  app.post("/api/v1/runs/:runId/cancel", (request) => cancel(context, request));
}

async function start(context: GatewayContext, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  refuseQuery(request);
  const body = readJsonBody(request.body);
  const { settings, input, waitMs } = readStart(body);
  const namespace =
    settings.namespace === "" ? context.namespaceOf(request) : context.checkNamespace(settings.namespace);
  const options = context.callOptions(request);
  const starter = settings.starter === "" ? (header(request, "taskmesh-starter") ?? "") : settings.starter;
  const run = await startRun(context, { ...settings, namespace, starter }, input, "input", options);
  const location = `/api/v1/runs/${run.runId}?namespace=${encodeURIComponent(namespace)}`;
  reply
    .code(run.existing ? 200 : 201)
    .header("location", location)
    .header("taskmesh-run-id", run.runId);
  const answer: JsonObject = { runId: run.runId, existing: run.existing };
  if (waitMs > 0) {
    const response = await waitForResult(context, namespace, run.runId, waitMs, options);
    const origin = { namespace, runId: run.runId, contract: run.contract.id };
    Object.assign(answer, await resultToJson(context, request, origin, response));
  }
  return reply.send(answer);
}

/** The body of a start: a StartRunRequest whose input is JSON in place, and how long to wait. */
function readStart(body: JsonInput): { settings: StartRunRequest; input: JsonInput; waitMs: number } {
  if (typeof body.value !== "object" || body.value === null || Array.isArray(body.value)) {
    throw invalid("", 'expected an object such as {"method": "acme.pages.v1.Pages/Check", "input": {}}');
  }
  const { input = {}, wait = "0s", ...rest } = body.value;
  for (const name of ["payload", "json"]) {
    if (Object.hasOwn(rest, name)) throw invalid(name, 'the input goes into "input", as JSON');
  }
  if (rest["signal"] !== undefined) {
    const given = readSignal({ value: rest["signal"], lossyIntegers: below(body.lossyIntegers, "signal") }, "signal");
    rest["signal"] = render("Signal", Signal, given);
  }
  const settings = decodeBody("StartRunRequest", StartRunRequest, rest, ["input", "wait"]);
  checkMethod("method", settings.method);
  if (typeof wait !== "string") throw invalid("wait", 'expected a duration such as "30s"');
  const lossyIntegers = below(body.lossyIntegers, "input");
  const waitMs = Math.min(parseDurationMs("wait", wait), WAIT_MS_MAX);
  return { settings, input: { value: input, lossyIntegers }, waitMs };
}

/** The paths under one key, from there. */
const below = (paths: readonly JsonPath[], key: string): JsonPath[] =>
  paths.filter((path) => path[0] === key).map((path) => path.slice(1));

/** Sends a signal: `{"name", "id", "value", "wait"}`, the value as JSON in place; with `wait` the answer has what the chain answers. */
async function signal(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  refuseQuery(request);
  const namespace = context.namespaceOf(request);
  const runId = runIdOfPath(request);
  const { value, lossyIntegers } = readJsonBody(request.body);
  const { wait = "0s", ...body } = isJsonObject(value) ? value : {};
  if (typeof wait !== "string") throw invalid("wait", 'expected a duration such as "30s"');
  const given = readSignal({ value: isJsonObject(value) ? body : value, lossyIntegers }, "");
  const waitMs = Math.min(parseDurationMs("wait", wait), WAIT_MS_MAX);
  return sendSignal(context, { namespace, runId, signal: given }, waitMs, context.callOptions(request));
}

async function list(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, [
    ...["status", "method", "label", "acceptedAfter", "acceptedBefore", "customId", "starter"],
    ...["pageSize", "pageToken"],
  ]);
  const method = query.text("method");
  const filter: ListRunsRequest = {
    namespace: context.namespaceOf(request),
    pageSize: query.integer("pageSize", 1, PAGE_SIZE_MAX) ?? 0,
    pageToken: query.text("pageToken") ?? "",
    statuses: query.all("status").flatMap((given) => given.split(",").map(parseStatus)),
    method: method === undefined ? "" : checkMethod("method", method),
    labels: Object.fromEntries(query.all("label").map(parseLabel)),
    acceptedAfter: query.instant("acceptedAfter"),
    acceptedBefore: query.instant("acceptedBefore"),
    customId: query.text("customId") ?? "",
    starter: query.text("starter") ?? "",
  };
  const answer = await context.upstream.call(RunServiceService.listRuns, filter, context.callOptions(request));
  const view = context.view(request);
  return {
    runs: await Promise.all(answer.runs.map((run) => view.header(run))),
    nextPageToken: answer.nextPageToken,
  };
}

const statusNames = Object.values(RunStatus)
  .filter((value) => typeof value === "number" && value > 0)
  .map((value) => runStatusToJSON(value as RunStatus));

/** "RUNNING", "running" or "RUN_STATUS_RUNNING". */
function parseStatus(given: string): RunStatus {
  const name = given.trim().toUpperCase();
  const full = name.startsWith("RUN_STATUS_") ? name : `RUN_STATUS_${name}`;
  if (statusNames.includes(full)) return RunStatus[full as keyof typeof RunStatus];
  const shortNames = statusNames.map((known) => known.slice("RUN_STATUS_".length));
  const nearest = nearestName(name, shortNames);
  const hint = nearest === undefined ? `; there are ${shortNames.join(", ")}` : `; did you mean ${nearest}?`;
  throw invalid("status", `there is no run status ${JSON.stringify(shorten(given))}${hint}`);
}

/** "key=value" or "key:value". */
function parseLabel(given: string): [key: string, value: string] {
  const at = given.includes("=") ? given.indexOf("=") : given.indexOf(":");
  if (at > 0) return [given.slice(0, at), given.slice(at + 1)];
  throw invalid("label", `expected key=value, found ${JSON.stringify(shorten(given))}`);
}

async function show(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, ["omitPayloads"]);
  const namespace = context.namespaceOf(request);
  const runId = runIdOfPath(request);
  const options = context.callOptions(request);
  const get = (omitPayloads: boolean) =>
    context.upstream.call(RunServiceService.getRun, { namespace, runId, omitPayloads }, options);
  const answer = await get(query.flag("omitPayloads")).catch((error: unknown) => {
    // A thousand steps with large payloads are more than one message holds; their states are not.
    if (isStatusError(error) && error.code === status.RESOURCE_EXHAUSTED) return get(true);
    throw error;
  });
  return context.view(request).run(answer);
}

/** One payload of one step in full: what the view of the run leaves out as too large. */
async function stepPayload(context: GatewayContext, request: FastifyRequest): Promise<JsonValue> {
  refuseQuery(request);
  const namespace = context.namespaceOf(request);
  const runId = runIdOfPath(request);
  const { stepId, side } = request.params as { stepId: string; side: string };
  if (side !== "input" && side !== "output") throw invalid("side", 'expected "input" or "output"');
  const filter = { namespace, runId, omitPayloads: false };
  const { steps } = await context.upstream.call(RunServiceService.getRun, filter, context.callOptions(request));
  const step = steps.find((candidate) => candidate.stepId === stepId);
  if (step === undefined) {
    const message = `run ${runId} has no step ${JSON.stringify(shorten(stepId))}`;
    throw statusError({ reason: "STEP_NOT_FOUND", message });
  }
  const payload = step[side];
  if (payload === undefined) {
    throw statusError({ reason: "PAYLOAD_NOT_FOUND", message: `step ${stepId} has no ${side} yet` });
  }
  return context.view(request).value(payload, { namespace, method: step.method, side });
}

async function items(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, ["pageSize", "pageToken", "omitPayloads"]);
  const { stepId } = request.params as { stepId: string };
  const filter = {
    namespace: context.namespaceOf(request),
    runId: runIdOfPath(request),
    stepId,
    pageSize: query.integer("pageSize", 1, PAGE_SIZE_MAX) ?? 0,
    pageToken: query.text("pageToken") ?? "",
    omitPayloads: query.flag("omitPayloads"),
  };
  const options = context.callOptions(request);
  const { run, steps } = await context.upstream.call(
    RunServiceService.getRun,
    { namespace: filter.namespace, runId: filter.runId, omitPayloads: true },
    options,
  );
  const answer = await context.upstream.call(RunServiceService.listItems, filter, options);
  const method = steps.find((step) => step.stepId === stepId)?.method ?? run?.method ?? "";
  return context.view(request).items(filter.namespace, method, answer);
}

async function result(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, ["wait"]);
  const namespace = context.namespaceOf(request);
  const runId = runIdOfPath(request);
  const waitMs = query.durationMs("wait", WAIT_MS_MAX) ?? 0;
  const response = await waitForResult(context, namespace, runId, waitMs, context.callOptions(request));
  return { runId, ...(await resultToJson(context, request, { namespace, runId, contract: "" }, response)) };
}

/** Status with output or failure. The output is whole: it is the caller's result, not a look at it. */
async function resultToJson(
  context: GatewayContext,
  request: FastifyRequest,
  origin: { namespace: string; runId: string; contract: string },
  response: GetResultResponse,
): Promise<JsonObject> {
  const options = context.callOptions(request);
  const { namespace, runId } = origin;
  const json: JsonObject = { status: runStatusToJSON(response.status) };
  const { output, failure } = response;
  if (
    output === undefined &&
    (failure === undefined || (failure.details.length === 0 && failure.cause === undefined))
  ) {
    return failure === undefined ? json : { ...json, failure: failureToJson(failure) };
  }
  let id = output?.contract || origin.contract;
  if (id === "") {
    const filter = { namespace, runId, omitPayloads: true };
    id = (await context.upstream.call(RunServiceService.getRun, filter, options)).run?.contract ?? "";
  }
  const found = context.contracts.revision(namespace, id, options);
  if (output !== undefined) {
    const bytes = await readPayload(context.upstream, namespace, output, options);
    json["output"] = payloadToJson(await found, "output", bytes, false);
  }
  if (failure !== undefined) {
    // A failure is readable without its contract; only details of its own types are not.
    json["failure"] = failureToJson(failure, (await found.catch(() => undefined))?.registry);
  }
  return json;
}

async function logs(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, ["stepId"]);
  const namespace = context.namespaceOf(request);
  const filter = { namespace, runId: runIdOfPath(request), stepId: query.text("stepId") ?? "" };
  const answer = await context.upstream.call(RunServiceService.getLogs, filter, context.callOptions(request));
  return render("GetLogsResponse", GetLogsResponse, answer);
}

async function cancel(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  refuseQuery(request);
  const namespace = context.namespaceOf(request);
  const runId = runIdOfPath(request);
  const isEmpty = !Buffer.isBuffer(request.body) || request.body.length === 0;
  const body = isEmpty ? {} : readJsonBody(request.body).value;
  if (typeof body !== "object" || body === null || Array.isArray(body)) throw invalid("", 'expected {"reason": "..."}');
  for (const name of Object.keys(body)) {
    if (name !== "reason" && name !== "actor") throw invalid(shorten(name), 'there are only "reason" and "actor"');
  }
  const { reason, actor } = decodeBody("CancelRunRequest", CancelRunRequest, body);
  const command = { namespace, runId, reason, actor };
  const answer = await context.upstream.call(RunServiceService.cancelRun, command, context.callOptions(request));
  return answer.run === undefined ? { run: { runId } } : { run: await context.view(request).header(answer.run) };
}
