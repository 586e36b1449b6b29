/** Assignments: what waiting steps ask of people. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import { Assignment, AssignmentServiceService, FormField } from "@taskmesh/proto";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { GatewayContext } from "../context.js";
import { invalid, Query, refuseQuery, runIdOfPath } from "../query.js";
import { render } from "../render.js";
import { readJsonBody } from "../start.js";

const PAGE_SIZE_MAX = 1_000;

/** Registers the routes. */
export function assignmentRoutes(app: FastifyInstance, context: GatewayContext): void {
  app.get("/api/v1/assignments", (request) => list(context, request));
  app.get("/api/v1/assignments/:runId/:stepId", (request) => show(context, request));
  for (const act of ["claim", "release", "comment", "complete"] as const) {
    app.post(`/api/v1/assignments/:runId/:stepId/${act}`, (request) => perform(context, request, act));
  }
}

const service = AssignmentServiceService;

async function list(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  const query = new Query(request, ["person", "group", "unclaimed", "runId", "pageSize", "pageToken"]);
  const filter = {
    namespace: context.namespaceOf(request),
    pageSize: query.integer("pageSize", 1, PAGE_SIZE_MAX) ?? 0,
    pageToken: query.text("pageToken") ?? "",
    person: query.text("person") ?? "",
    groups: [...query.all("group")],
    unclaimed: query.flag("unclaimed"),
    runId: query.text("runId") ?? "",
  };
  const answer = await context.upstream.call(service.listAssignments, filter, context.callOptions(request));
  const assignments = answer.assignments.map((one) => render("Assignment", Assignment, one));
  return { assignments, nextPageToken: answer.nextPageToken };
}

function placeOf(context: GatewayContext, request: FastifyRequest) {
  const { stepId } = request.params as { stepId: string };
  return { namespace: context.namespaceOf(request), runId: runIdOfPath(request), stepId };
}

async function show(context: GatewayContext, request: FastifyRequest): Promise<JsonObject> {
  refuseQuery(request);
  const place = placeOf(context, request);
  const answer = await context.upstream.call(service.getAssignment, place, context.callOptions(request));
  return {
    assignment: answer.assignment === undefined ? {} : render("Assignment", Assignment, answer.assignment),
    form: answer.form.map((field) => render("FormField", FormField, field)),
  };
}

/** What the body of each request may say. */
const keys = {
  claim: ["person", "groups"],
  release: ["person"],
  comment: ["person", "text"],
  complete: ["person", "groups", "output"],
} as const;

async function perform(context: GatewayContext, request: FastifyRequest, act: keyof typeof keys): Promise<JsonObject> {
  refuseQuery(request);
  const place = placeOf(context, request);
  const { body, output } = readBody(request, act);
  const person = textOf(body, "person");
  const options = context.callOptions(request);
  const { upstream } = context;
  switch (act) {
    case "claim":
      await upstream.call(service.claimAssignment, { ...place, person, groups: groupsOf(body) }, options);
      break;
    case "release":
      await upstream.call(service.releaseAssignment, { ...place, person }, options);
      break;
    case "comment":
      await upstream.call(service.commentAssignment, { ...place, person, text: textOf(body, "text") }, options);
      break;
    case "complete": {
      const command = { ...place, person, groups: groupsOf(body), output: { $case: "json" as const, value: output } };
      await upstream.call(service.completeAssignment, command, options);
    }
  }
  return {};
}

function readBody(request: FastifyRequest, act: keyof typeof keys): { body: JsonObject; output: string } {
  const { value: body, lossyIntegers } = readJsonBody(request.body);
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw invalid("", `expected an object with ${keys[act].join(", ")}`);
  }
  const known: readonly string[] = keys[act];
  for (const name of Object.keys(body)) {
    if (!known.includes(name)) throw invalid(name.slice(0, 64), `there are only ${known.join(", ")}`);
  }
  const [lossy] = lossyIntegers;
  if (lossy !== undefined) throw invalid(lossy.join("."), "JSON would round this integer; write it as a string");
  return { body, output: JSON.stringify(body["output"] ?? {}) };
}

function textOf(body: JsonObject, name: string): string {
  const value: JsonValue = body[name] ?? "";
  if (typeof value === "string") return value;
  throw invalid(name, "expected a text");
}

function groupsOf(body: JsonObject): string[] {
  const value: JsonValue = body["groups"] ?? [];
  if (Array.isArray(value) && value.every((group) => typeof group === "string")) return value;
  throw invalid("groups", "expected a list of texts");
}
