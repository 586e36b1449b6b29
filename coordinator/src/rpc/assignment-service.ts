/** AssignmentService: what waiting steps ask of people. Who may do it is decided here, what becomes of it in the engine. */
import type { DescField } from "@bufbuild/protobuf";
import type {
  Assignment,
  AssignmentServiceServer,
  FormField,
  ListAssignmentsRequest,
  ListAssignmentsResponse,
} from "@taskmesh/proto";
import { statusError } from "@taskmesh/runtime";
import type { Contract } from "../contracts/contract.js";
import type { AssignmentAct } from "../engine/run-event.js";
import { isRunId } from "../pipeline/completions.js";
import type { Intake } from "../pipeline/ports.js";
import { assignmentNotFound } from "../pipeline/send-answer.js";
import { type AssignmentRow, listAssignments } from "../store/assignments.js";
import type { Database } from "../store/db.js";
import { unary } from "./calls.js";
import { hasControl, invalid, readGiven } from "./given-value.js";
import { readStepPageToken, writePageToken } from "./page-token.js";
import { toTimestamp } from "./run-view.js";

export interface AssignmentServiceDeps {
  db: Database;
  intake: Pick<Intake, "assignment">;
  namespaces: { resolve(name: string): Promise<{ id: number; name: string }> };
  contractOf(namespaceId: number, fingerprint: string): Promise<Contract | undefined>;
}

const pageSizeDefault = 100;
const pageSizeMax = 1_000;
const nameCharsMax = 128;
const groupsMax = 200;
const commentCharsMax = 4_000;

interface Place {
  namespace: string;
  runId: string;
  stepId: string;
}

/** Makes the service. */
export function createAssignmentService(deps: AssignmentServiceDeps): AssignmentServiceServer {
  const act = async (place: Place, person: string, what: AssignmentAct): Promise<Record<string, never>> => {
    checkPerson(person);
    const { id } = await deps.namespaces.resolve(place.namespace);
    if (!isRunId(place.runId)) throw assignmentNotFound(place.stepId);
    await deps.intake.assignment(id, place.runId, { stepId: place.stepId, person, act: what });
    return {};
  };
  return {
    listAssignments: unary((request) => list(deps, request)),
    getAssignment: unary(async (request) => {
      const { row, form } = await find(deps, request);
      return { assignment: describe(row, request.namespace), form: formOf(form) };
    }),
    claimAssignment: unary(async (request) => {
      const { row } = await find(deps, request);
      checkAllowed(row, request);
      return act(request, request.person, { kind: "claim" });
    }),
    releaseAssignment: unary((request) => act(request, request.person, { kind: "release" })),
    commentAssignment: unary((request) => {
      const text = request.text.replaceAll("\u0000", "");
      if (text === "" || text.length > commentCharsMax)
        throw invalid("ARGUMENT_INVALID", [{ field: "text", message: `must have 1 to ${commentCharsMax} characters` }]);
      return act(request, request.person, { kind: "comment", text });
    }),
    completeAssignment: unary(async (request) => {
      const { row, form, namespaceId } = await find(deps, request);
      checkAllowed(row, request);
      const value = await readGiven(deps.db, namespaceId, { contract: form, side: "output" }, request.output);
      return act(request, request.person, { kind: "complete", value });
    }),
  };
}

/** An open assignment with the contract of its form. */
async function find(deps: AssignmentServiceDeps, { namespace, runId, stepId }: Place) {
  const { id } = await deps.namespaces.resolve(namespace);
  const filter = { namespaceId: id, runId, stepId, limit: 1 };
  const [row] =
    isRunId(runId) && stepId.length <= 64 && !hasControl(stepId) ? await listAssignments(deps.db, filter) : [];
  if (row === undefined) throw assignmentNotFound(stepId);
  const form = await deps.contractOf(id, row.contract);
  if (!form) throw new Error(`contract ${row.contract} of an assignment is not stored`);
  return { row, form, namespaceId: id };
}

function checkPerson(person: string): void {
  if (person !== "" && person.length <= nameCharsMax && !hasControl(person)) return;
  const message = `must have 1 to ${nameCharsMax} printable characters`;
  throw invalid("ARGUMENT_INVALID", [{ field: "person", message }]);
}

/** Whoever has claimed it was allowed to, whatever groups the person names now. */
function checkAllowed(
  { terms, claimedBy, stepId }: AssignmentRow,
  who: { person: string; groups: readonly string[] },
): void {
  checkPerson(who.person);
  const { assignees, groups } = terms;
  if (claimedBy === who.person || (assignees.length === 0 && groups.length === 0)) return;
  if (assignees.includes(who.person) || groups.some((group) => who.groups.includes(group))) return;
  throw statusError({ reason: "ASSIGNMENT_DENIED", message: `the assignment of step "${stepId}" is for other people` });
}

async function list(deps: AssignmentServiceDeps, request: ListAssignmentsRequest): Promise<ListAssignmentsResponse> {
  const { id } = await deps.namespaces.resolve(request.namespace);
  const bad = (field: string, message: string) => invalid("ARGUMENT_INVALID", [{ field, message }]);
  if (request.pageSize > pageSizeMax)
    throw bad("page_size", `is ${request.pageSize}; at most ${pageSizeMax} is allowed`);
  if (request.groups.length > groupsMax) throw bad("groups", `are over ${groupsMax}`);
  if (hasControl(request.person + request.groups.join(""))) throw bad("person", "and groups must be printable");
  if (request.runId !== "" && !isRunId(request.runId)) throw bad("run_id", "is no run id");
  const limit = request.pageSize || pageSizeDefault;
  const rows = await listAssignments(deps.db, {
    namespaceId: id,
    ...(request.pageToken === "" ? {} : { after: readStepPageToken(request.pageToken) }),
    ...(request.person === "" ? {} : { person: request.person }),
    ...(request.runId === "" ? {} : { runId: request.runId }),
    groups: request.groups,
    unclaimed: request.unclaimed,
    limit: limit + 1,
  });
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return {
    assignments: page.map((row) => describe(row, request.namespace)),
    nextPageToken: rows.length > limit && last ? writePageToken(`${last.runId}/${last.step}`) : "",
  };
}

function describe(row: AssignmentRow, namespace: string): Assignment {
  const { runId, stepId, method, contract, claimedBy, terms } = row;
  return {
    ...{ namespace, runId, stepId, method, contract, claimedBy },
    title: terms.title,
    instructions: terms.instructions,
    assignees: [...terms.assignees],
    groups: [...terms.groups],
    escalated: terms.escalated ?? 0,
    openedAt: toTimestamp(row.openedAtMs),
    dueAt: toTimestamp(row.dueAtMs),
  };
}

const formOf = ({ output }: Contract): FormField[] =>
  output.fields.map((field) => ({
    name: field.jsonName,
    type: typeOf(field),
    choices: field.enum?.values.map(({ name }) => name) ?? [],
  }));

const scalars = ["", "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "", ""];
scalars.push("bytes", "uint32", "", "sfixed32", "sfixed64", "sint32", "sint64");

function typeOf(field: DescField): string {
  const base = field.message?.typeName ?? field.enum?.typeName ?? scalars[field.scalar ?? 0] ?? "";
  if (field.fieldKind === "map") return `map<${scalars[field.mapKey]}, ${base}>`;
  return field.fieldKind === "list" ? `repeated ${base}` : base;
}
