/** The HTTP server: limits, headers, hooks and errors; what it serves is in routes/. */
import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import type { Socket } from "node:net";
import {
  type GatewayConfig,
  internalError,
  isStatusError,
  type LiveSpan,
  metrics,
  type StatusError,
  statusError,
  tracing,
} from "@taskmesh/runtime";
import Fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
} from "fastify";
import { createAccessCheck } from "./access.js";
import { BodyBudget } from "./body-budget.js";
import type { GatewayContext } from "./context.js";
import { fromFastifyError, problemOf, sendProblem } from "./problem.js";
import { actionRoutes } from "./routes/actions.js";
import { assignmentRoutes } from "./routes/assignments.js";
import { bulkRoutes } from "./routes/bulk.js";
import { callableRoutes, DECLARED_PATHS } from "./routes/callables.js";
import { callbackRoutes } from "./routes/callbacks.js";
import { chainRoutes } from "./routes/chains.js";
import { contractRoutes } from "./routes/contracts.js";
import { docsRoutes } from "./routes/docs.js";
import { eventRoutes } from "./routes/events.js";
import { namespaceRoutes } from "./routes/namespace.js";
import { openApiRoutes } from "./routes/openapi.js";
import { rolloutRoutes } from "./routes/rollout.js";
import { routeRoutes } from "./routes/routes.js";
import { runOperationRoutes } from "./routes/run-operations.js";
import { runRoutes } from "./routes/runs.js";
import { statusRoutes } from "./routes/status.js";

/** Bodies of routes that say nothing else. */
const BODY_BYTES_MAX = 1024 * 1024;
const CONNECTIONS_MAX = 5_000;
/** A client that sends its headers slower than this holds a connection for nothing. */
const HEADERS_TIMEOUT_MS = 10_000;
const SLOW_CHECK_MS = 2_000;
/** The largest body over a line of 5 Mbit/s. */
const REQUEST_TIMEOUT_MS = 120_000;
/** Longer than a parameter of ours can be; longer ones are no route. */
const PARAM_LENGTH_MAX = 512;

/** Builds the server with every route; it does not listen yet. */
export function createServer(context: GatewayContext): FastifyInstance {
  const { config } = context;
  const app = createApp(config, {
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: REQUEST_TIMEOUT_MS,
    genReqId: () => randomUUID(),
    requestIdHeader: false,
    routerOptions: { maxParamLength: PARAM_LENGTH_MAX },
    forceCloseConnections: "idle",
    clientErrorHandler,
    // What fails before any hook: an undecodable path.
    frameworkErrors: (error, request, reply) => {
      void answerError(context, error, request, reply.headers(securityHeaders));
    },
    exposeHeadRoutes: false,
  });
  app.server.maxConnections = CONNECTIONS_MAX;
  app.server.headersTimeout = HEADERS_TIMEOUT_MS;
  addHooks(app, context);
  addBodies(app);
  const allowedMethods = trackRoutes(app);
  app.setErrorHandler((error: FastifyError, request, reply) => answerError(context, error, request, reply));
  app.setNotFoundHandler((request, reply) => answerNotFound(request, reply, allowedMethods));
  statusRoutes(app, context);
  actionRoutes(app, context);
  chainRoutes(app, context);
  namespaceRoutes(app, context);
  contractRoutes(app, context);
  rolloutRoutes(app, context);
  runRoutes(app, context);
  runOperationRoutes(app, context);
  bulkRoutes(app, context);
  eventRoutes(app, context);
  callbackRoutes(app, context);
  assignmentRoutes(app, context);
  routeRoutes(app, context);
  openApiRoutes(app, context);
  docsRoutes(app);
  callableRoutes(app, context, (request, reply, declared) => answerNotFound(request, reply, allowedMethods, declared));
  return app;
}

function createApp({ tls }: GatewayConfig, options: FastifyServerOptions): FastifyInstance {
  // node:http looks for slow clients only now and then; its default is every 30 s.
  const server = { connectionsCheckingInterval: SLOW_CHECK_MS };
  if (tls === undefined) return Fastify({ ...options, http: server } as FastifyServerOptions);
  const { cert, key, clientCa } = tls;
  const client = clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
  const https = { ...server, cert, key, minVersion: "TLSv1.2", ...client };
  return Fastify({ ...options, https } as FastifyServerOptions);
}

const securityHeaders = {
  "x-content-type-options": "nosniff",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "cache-control": "no-store",
};

function addHooks(app: FastifyInstance, context: GatewayContext): void {
  const checkAccess = createAccessCheck(context.config);
  const spans = new WeakMap<FastifyRequest, LiveSpan>();
  app.decorateRequest("clientGone", null as unknown as AbortSignal);
  app.decorateRequest("traceHeaders", null as unknown as Readonly<Record<string, string>>);

  app.addHook("onRequest", (request, reply, done) => {
    const gone = new AbortController();
    setMaxListeners(0, gone.signal);
    reply.raw.once("close", () => gone.abort());
    request.clientGone = gone.signal;
    const span = startSpan(request);
    if (span !== undefined) spans.set(request, span);
    // Without spans of its own the gateway still hands the caller's trace on.
    request.traceHeaders = span?.headers ?? tracing.extract(request.headers) ?? {};
    reply.headers({ ...securityHeaders, "taskmesh-request-id": request.id });
    if (context.config.tls !== undefined) reply.header("strict-transport-security", "max-age=31536000");
    checkAccess(request);
    done();
  });

  // Hijacked replies (event streams) end here too: "close" comes however a response ends.
  app.addHook("onRequest", (request, reply, done) => {
    reply.raw.once("close", () => {
      const { statusCode } = reply.raw;
      const span = spans.get(request);
      const route = routeOf(request);
      // Which declared route it was is known only now.
      span?.rename(`${request.method} ${route}`);
      span?.setAttribute("http.route", route);
      span?.setAttribute("http.response.status_code", statusCode);
      span?.end(statusCode >= 500 ? `HTTP ${statusCode}` : undefined);
      const ms = Math.round(reply.elapsedTime);
      metrics.requestSeconds.record(reply.elapsedTime / 1_000, request.method, route, String(statusCode));
      const traced = span && { trace_id: span.traceId };
      const about = { request_id: request.id, method: request.method, url: withoutToken(request.url), statusCode, ms };
      context.log.debug({ ...about, ...traced }, "answered");
    });
    done();
  });
}

function startSpan(request: FastifyRequest): LiveSpan | undefined {
  if (!tracing.enabled) return undefined;
  return tracing.startSpan({
    name: `${request.method} ${routeOf(request)}`,
    kind: "server",
    parent: tracing.extract(request.headers),
    // Not the path: a callback's has its token, and a declared one what its contract may call sensitive.
    attributes: { "http.request.method": request.method },
  });
}

/** The pattern that took the request. */
function routeOf({ declared, routeOptions: { url } }: FastifyRequest): string {
  return declared?.value.binding.template.text ?? (url === DECLARED_PATHS ? undefined : url) ?? "unknown";
}

/** Who has the token of a callback may answer it. */
const withoutToken = (url: string): string => url.replace(/(\/callbacks\/)[^/?]+/, "$1[hidden]");

/** Bodies reach the handlers as bytes: they are read strictly there, where it is known what they are to be. */
function addBodies(app: FastifyInstance): void {
  const budget = new BodyBudget();
  app.addHook("preParsing", (request, reply, payload, done) => {
    budget.take(request, reply);
    done(null, payload);
  });
  app.removeAllContentTypeParsers();
  const types = ["application/json", "application/yaml", "application/x-yaml", "text/yaml"];
  app.addContentTypeParser(types, { parseAs: "buffer" }, (_request, body, done) => done(null, body));
}

/** Records the routes, to tell a wrong method from a wrong path. */
function trackRoutes(app: FastifyInstance): (path: string) => string[] {
  const routes: { pattern: RegExp; method: string }[] = [];
  app.addHook("onRoute", ({ url, method }) => {
    if (url === DECLARED_PATHS) return;
    const pattern = new RegExp(`^${url.replace(/:[A-Za-z]+/g, "[^/]+")}$`);
    for (const one of [method].flat()) routes.push({ pattern, method: one });
  });
  return (path) => [...new Set(routes.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method))];
}

function answerNotFound(
  request: FastifyRequest,
  reply: FastifyReply,
  allowedMethods: (path: string) => string[],
  declared: readonly string[] = [],
): FastifyReply {
  const path = request.url.split("?", 1)[0]!;
  const allowed = [...new Set([...allowedMethods(path), ...declared])];
  // A path that is none although its method would do: a name in it is longer than any.
  if (allowed.length === 0 || allowed.includes(request.method)) {
    return sendProblem(reply, problemOf(statusError({ reason: "ROUTE_NOT_FOUND", message: "there is no such route" })));
  }
  const message = `${request.method} is not possible here, but ${allowed.join(", ")}`;
  reply.header("allow", allowed.join(", "));
  return sendProblem(reply, problemOf(statusError({ reason: "HTTP_METHOD_NOT_ALLOWED", message })));
}

function answerError(
  context: GatewayContext,
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  const known: StatusError = isStatusError(error)
    ? error
    : (fromFastifyError(error) ?? internalError(error, request.id));
  const problem = problemOf(known);
  const facts = { request_id: request.id, method: request.method, url: request.url };
  if (problem.status === 500) context.log.error({ ...facts, err: known }, "request failed");
  else if (problem.status > 500)
    context.log.warn({ ...facts, reason: known.reason, detail: known.message }, "request refused");
  return sendProblem(reply, problem);
}

/** What is no HTTP at all, or too slow, never reaches a route: the answer is written by hand. */
function clientErrorHandler(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const isLate = error.code === "ERR_HTTP_REQUEST_TIMEOUT";
  const isLarge = error.code === "HPE_HEADER_OVERFLOW";
  const reason = isLate ? "DEADLINE_EXCEEDED" : isLarge ? "LIMIT_EXCEEDED" : "ARGUMENT_INVALID";
  const status = isLate ? 408 : isLarge ? 431 : 400;
  const detail = isLate
    ? "the request came too slowly"
    : isLarge
      ? "the headers are too large"
      : "this is not valid HTTP";
  const body = JSON.stringify({ ...problemOf(statusError({ reason, message: detail })), status });
  const head = `HTTP/1.1 ${status} ${detail}\r\ncontent-type: application/problem+json; charset=utf-8\r\n`;
  socket.end(`${head}content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`);
}
