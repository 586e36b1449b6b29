/** What callers of registered contracts say about the run behind their call: labels, priority, deadline, not to wait; and what leaving does. */
import { Client, Metadata, type ServiceError } from "@grpc/grpc-js";
import { type ActionContext, fail } from "@taskmesh/action-sdk";
import { type Run, RunStatus } from "@taskmesh/proto";
import { createClient, fromServiceError, status, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { compileProtos } from "../fixtures/compile-protos.js";
import { echoAction } from "../fixtures/echo-actions.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";

const service = "acme.calls.v1.CallActions";
const descriptors = compileProtos({
  "acme/calls.proto": `
    syntax = "proto3";
    package acme.calls.v1;
    import "taskmesh/v1/options.proto";
    service CallActions {
      rpc Echo(Text) returns (Text);
      rpc Hold(Text) returns (Text);
      rpc HoldForCaller(Text) returns (Text) { option (taskmesh.v1.action) = { cancel_with_call: true }; }
      rpc Refuse(Text) returns (Text);
    }
    message Text { string text = 1; }`,
});

let mesh: InProcessMesh;
let client: Client;

/** Takes no notice of anything: whether it is still wanted shows in its run alone. */
const ignore = () => new Promise<void>(() => {});
const hold = (_: Buffer, { signal }: ActionContext) =>
  new Promise<void>((_resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  const refuse = () => {
    throw fail.final("TOO_BORING", "nothing to see", {
      details: [{ type: "acme.calls.v1.Text", value: Buffer.from("\x0a\x03why") }],
    });
  };
  const actions = [
    echoAction(`${service}/Echo`),
    echoAction(`${service}/Hold`, ignore),
    echoAction(`${service}/HoldForCaller`, hold),
    echoAction(`${service}/Refuse`, refuse),
  ];
  await mesh.serve(actions, { descriptors, carrier: mesh.coordinator.carrier });
  client = createClient(Client, { addresses: [mesh.address] });
  await vi.waitFor(async () => expect((await call("Echo").answer).length).toBeGreaterThan(0), { timeout: 20_000 });
});
afterAll(async () => {
  client?.close();
  await mesh?.stop();
});

interface Called {
  answer: Promise<Buffer>;
  runId: Promise<string>;
  cancel(): void;
}

/** Calls as a stock stub does. */
function call(rpc: string, headers: [string, string][] = [], deadlineMs = 30_000): Called {
  const metadata = new Metadata();
  for (const [name, value] of headers) metadata.add(name, value);
  const called: Partial<Called> = {};
  const bytes = (value: Buffer): Buffer => value;
  called.answer = new Promise((resolve, reject) => {
    const input = Buffer.from("\x0a\x02hi");
    const deadline = Number.isFinite(deadlineMs) ? Date.now() + deadlineMs : Number.POSITIVE_INFINITY;
    const made = client.makeUnaryRequest(
      `/${service}/${rpc}`,
      bytes,
      bytes,
      input,
      metadata,
      { deadline },
      (error: ServiceError | null, answer) => (error ? reject(error) : resolve(answer!)),
    );
    called.cancel = () => made.cancel();
    called.runId = new Promise((found) =>
      made.on("metadata", (initial) => found(initial.get("taskmesh-run-id")[0]?.toString() ?? "")),
    );
  });
  // Who cancels does not look at the answer.
  called.answer.catch(() => {});
  return called as Called;
}

async function runOf(runId: string): Promise<Run> {
  const { run } = await unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: true });
  return run!;
}

const untilStatus = (runId: string, wanted: RunStatus) =>
  vi.waitFor(async () => expect((await runOf(runId)).status).toBe(wanted), { timeout: 20_000 });

describe("metadata of a call", () => {
  it("gives the run labels and a priority", async () => {
    const headers: [string, string][] = [
      ["taskmesh-label", "team=web"],
      ["taskmesh-label", "note=a=b"],
      ["taskmesh-priority", "-7"],
    ];
    const { answer, runId } = call("Echo", headers);
    await answer;
    expect(await runOf(await runId)).toMatchObject({ labels: { team: "web", note: "a=b" }, priority: -7 });
  });

  it("lets the caller go at once, with an empty message and the run's id", async () => {
    const { answer, runId } = call("Echo", [["taskmesh-async", "true"]], 5_000);
    expect(await answer).toHaveLength(0);
    await untilStatus(await runId, RunStatus.RUN_STATUS_SUCCEEDED);
    const again = call("Hold", [["taskmesh-async", "true"]]);
    expect(await again.answer).toHaveLength(0);
    expect((await runOf(await again.runId)).status).toBe(RunStatus.RUN_STATUS_RUNNING);
  });

  it.each([
    ["taskmesh-label", "team"],
    ["taskmesh-priority", "high"],
    ["taskmesh-priority", "101"],
    ["taskmesh-async", "yes"],
  ])("is refused where %s is %j", async (name, value) => {
    const error = fromServiceError(await call("Echo", [[name, value]]).answer.catch((thrown) => thrown));
    expect(error).toMatchObject({ code: status.INVALID_ARGUMENT, reason: "ARGUMENT_INVALID" });
    expect(error.fieldViolations[0]?.field).toBe(name);
  });
});

describe("a caller's patience", () => {
  it("is the run's: it expires when its caller gives up", async () => {
    const { answer, runId } = call("Hold", [], 3_000);
    await expect(answer).rejects.toMatchObject({ code: status.DEADLINE_EXCEEDED });
    await untilStatus(await runId, RunStatus.RUN_STATUS_EXPIRED);
  });

  it("does not matter to the run when the caller leaves before", async () => {
    const left = call("Hold", [], Number.POSITIVE_INFINITY);
    const runId = await left.runId;
    left.cancel();
    await expect(left.answer).rejects.toMatchObject({ code: status.CANCELLED });
    const other = call("HoldForCaller", [], Number.POSITIVE_INFINITY);
    const cancelled = await other.runId;
    other.cancel();
    await untilStatus(cancelled, RunStatus.RUN_STATUS_CANCELLED);
    expect((await runOf(runId)).status).toBe(RunStatus.RUN_STATUS_RUNNING);
  });
});

describe("what a plain client sees", () => {
  it("is the action's own typed detail, beside the failure as the mesh records it", async () => {
    const error = fromServiceError(await call("Refuse").answer.catch((thrown) => thrown));
    expect(error).toMatchObject({ code: status.ABORTED, reason: "RUN_FAILED", metadata: { failure: "TOO_BORING" } });
    const types = error.details.map(({ typeUrl }) => typeUrl.split("/").at(-1));
    expect(types).toEqual(["taskmesh.v1.RunFailed", "acme.calls.v1.Text"]);
  });

  it("is the health of its service", async () => {
    const check = (name: string) =>
      new Promise<Buffer>((resolve, reject) => {
        const input = Buffer.concat([Buffer.from([0x0a, name.length]), Buffer.from(name)]);
        const bytes = (value: Buffer): Buffer => value;
        client.makeUnaryRequest("/grpc.health.v1.Health/Check", bytes, bytes, input, (error, answer) =>
          error ? reject(error) : resolve(answer!),
        );
      });
    expect([...(await check(service))]).toEqual([0x08, 1]);
    await expect(check("acme.calls.v1.Other")).rejects.toMatchObject({ code: status.NOT_FOUND });
  });
});
