/** Steps that wait for people, end to end: over gRPC and REST, on real servers and on what is embedded. */
import type { Gateway } from "@taskmesh/gateway";
import { AssignmentServiceClient, EventKind, ListAssignmentsRequest, RunStatus } from "@taskmesh/proto";
import { createClient, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { chainOfGuide } from "../fixtures/guide.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";

const method = "acme.expenses.v1.Expenses/Approve";
const base = "/api/v1/assignments";

describe.each(["servers", "embedded"] as const)("assignments on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  let assignments: AssignmentServiceClient;

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    gateway = await startTestGateway([mesh.address.port]);
    await holdToDocument(gateway);
    assignments = createClient(AssignmentServiceClient, { addresses: [mesh.address] });
    await mesh.putChain(chainOfGuide("people.md", "Approve"));
  }, 60_000);
  afterAll(async () => {
    assignments.close();
    await gateway.stop();
    await mesh.stop();
  }, 30_000);

  const start = (amount: number, more: object = {}): Promise<string> => {
    const given = { employee: "Ada", amount, reason: "a \u{1f682} ticket", managers: ["grace"], ...more };
    return mesh.start({ method, input: { $case: "json", value: JSON.stringify(given) } });
  };
  const post = (runId: string, act: string, body: object) => ask(gateway, `${base}/${runId}/decide/${act}`, { body });
  const inbox = async (query: string): Promise<string[]> => {
    const answer = await ask(gateway, `${base}?${query}`);
    return answer.json.assignments.map((one: { runId: string }) => one.runId);
  };

  it("wait in the inboxes of those that they are for, are claimed by one, and end the step with the form", async () => {
    const runId = await start(250);
    expect((await mesh.result(await start(20))).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const shown = await ask(gateway, `${base}/${runId}/decide`);
    expect(shown.json).toMatchObject({
      assignment: {
        ...{ method, runId, stepId: "decide", title: "Approve 250 for Ada", instructions: "a \u{1f682} ticket" },
        ...{ assignees: ["grace"], groups: ["finance"], claimedBy: "" },
      },
      form: [
        { name: "approved", type: "bool" },
        { name: "by", type: "string" },
        { name: "note", type: "string" },
      ],
    });
    expect(await inbox("person=grace")).toEqual([runId]);
    expect(await inbox("group=finance")).toEqual([runId]);
    expect(await inbox("person=bob&group=sales")).toEqual([]);
    expect(await post(runId, "claim", { person: "bob" })).toMatchObject({
      status: 403,
      json: { reason: "ASSIGNMENT_DENIED" },
    });
    expect((await post(runId, "claim", { person: "frank", groups: ["finance"] })).status).toBe(200);
    expect(await inbox("person=grace")).toEqual([]);
    expect(await inbox("person=frank")).toEqual([runId]);
    expect(await inbox("unclaimed=true")).toEqual([]);
    const output = { approved: true, by: "grace" };
    expect(await post(runId, "complete", { person: "grace", output })).toMatchObject({
      status: 409,
      json: { reason: "ASSIGNMENT_CLAIMED" },
    });
    expect((await post(runId, "comment", { person: "grace", text: "I'll do it" })).status).toBe(200);
    expect((await post(runId, "release", { person: "frank" })).status).toBe(200);
    expect(await post(runId, "complete", { person: "grace", output: { approved: "yes" } })).toMatchObject({
      status: 400,
      json: { reason: "INPUT_INVALID" },
    });
    expect((await post(runId, "complete", { person: "grace", output })).status).toBe(200);
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const result = await ask(gateway, `/api/v1/runs/${runId}/result`);
    expect(result.json.output).toMatchObject({ approved: true, by: "grace" });
    const notes = (await mesh.history(runId)).filter(({ note }) => note !== "").map(({ kind, note }) => [kind, note]);
    expect(notes).toEqual([
      [EventKind.EVENT_KIND_ASSIGNMENT_CLAIMED, "frank"],
      [EventKind.EVENT_KIND_ASSIGNMENT_COMMENTED, "grace: I'll do it"],
      [EventKind.EVENT_KIND_ASSIGNMENT_RELEASED, "frank"],
      [EventKind.EVENT_KIND_ASSIGNMENT_COMPLETED, "grace"],
    ]);
    expect(await post(runId, "complete", { person: "grace", output })).toMatchObject({
      status: 404,
      json: { reason: "ASSIGNMENT_NOT_FOUND" },
    });
    expect(await inbox("")).toEqual([]);
  }, 60_000);

  it("leave the inboxes with their run, and are listed page by page", async () => {
    const runs: string[] = [];
    for (let n = 0; n < 5; n++) runs.push(await start(100 + n, { managers: [] }));
    await vi.waitFor(async () => expect(await inbox("")).toHaveLength(5), { timeout: 20_000 });
    const pages: string[][] = [];
    let pageToken = "";
    do {
      const request = ListAssignmentsRequest.fromPartial({ namespace: "default", pageSize: 2, pageToken });
      const page = await unaryCall(assignments, assignments.listAssignments, request);
      pages.push(page.assignments.map(({ runId }) => runId));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    const newest = [...runs].reverse();
    expect(pages).toEqual([newest.slice(0, 2), newest.slice(2, 4), newest.slice(4)]);
    expect((await post(runs[0]!, "claim", { person: "x", groups: ["finance"] })).status).toBe(200);
    for (const runId of runs) {
      await unaryCall(mesh.runs, mesh.runs.cancelRun, { namespace: "default", runId, reason: "", actor: "" });
    }
    expect(await inbox("")).toEqual([]);
    expect(await post(runs[0]!, "comment", { person: "x", text: "late" })).toMatchObject({ status: 404 });
  }, 60_000);

  it("refuse what makes no sense", async () => {
    const runId = await start(300);
    const tried = [
      await post(runId, "claim", {}),
      await post(runId, "claim", { person: "grace", group: "finance" }),
      await post(runId, "complete", { person: "grace", output: { aproved: true } }),
      await ask(gateway, `${base}/${runId}/decid`),
      await ask(gateway, `${base}/nobody/decide`),
      await ask(gateway, `${base}?persn=grace`),
      await ask(gateway, `${base}?pageToken=x`),
    ];
    expect(tried.map(({ status, json }) => [status, json.reason])).toEqual([
      [400, "ARGUMENT_INVALID"],
      [400, "ARGUMENT_INVALID"],
      [400, "INPUT_INVALID"],
      [404, "ASSIGNMENT_NOT_FOUND"],
      [404, "ASSIGNMENT_NOT_FOUND"],
      [400, "ARGUMENT_INVALID"],
      [400, "PAGE_TOKEN_INVALID"],
    ]);
    await unaryCall(mesh.runs, mesh.runs.cancelRun, { namespace: "default", runId, reason: "", actor: "" });
  }, 60_000);
});
