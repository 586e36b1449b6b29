/**
 * Messages that no honest peer sends, on every subject and stream of a mesh on real servers. While they come, honest runs succeed; the
 * run that they are aimed at goes on as if nothing had come.
 */
import { connect as connectHttp2 } from "node:http2";
import { Client, credentials, type ServiceError, status } from "@grpc/grpc-js";
import { defineAction } from "@taskmesh/action-sdk";
import {
  type CompleteStep,
  CompletionBatch,
  EventKind,
  Payload,
  RunStatus,
  StartBatch,
  type StartStep,
} from "@taskmesh/proto";
import { formatAddress, type JetStreamCarrier, metrics, unaryCall, uuidv7 } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BrokerTap } from "../fixtures/broker-tap.js";
import {
  completion,
  garbage,
  gibibytePrefix,
  nestedFailure,
  openGroups,
  randomBytes,
} from "../fixtures/hostile-bytes.js";
import { countOf, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { PageActionsService } from "../fixtures/page-actions.js";
import { waitFor } from "../fixtures/process.js";

const method = "acme.pages.v1.PageActions/Score";
let mesh: InProcessMesh;
let tap: BrokerTap;
/** Ends the handlers that hold. */
const held = new Map<string, (() => void)[]>();
const release = (text: string): void => {
  for (const end of held.get(text) ?? []) end();
};

const score = defineAction(PageActionsService.score, async ({ text }) => {
  if (text.startsWith("hold"))
    await new Promise<void>((resolve) => held.set(text, [...(held.get(text) ?? []), resolve]));
  return { words: text.split(/\s+/).length };
});

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "servers", namespaces: ["default", "other"] });
  tap = await BrokerTap.open(mesh.nats!.url);
  await mesh.serve([score], { transports: ["jetstream"], slots: 20 });
});
afterAll(async () => {
  for (const text of held.keys()) release(text);
  await tap?.close();
  await mesh?.stop();
});

const startText = (text: string) => mesh.start({ method, input: { $case: "json", value: JSON.stringify({ text }) } });
const words = (count: number): Buffer => PageActionsService.score.responseSerialize({ words: count });

/** Proof that the mesh works in this window: new runs end with their results. */
async function work(count = 10): Promise<void> {
  const ids = await Promise.all(Array.from({ length: count }, (_, i) => startText(`work ${i}`)));
  for (const id of ids) {
    const result = await mesh.result(id);
    expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(result.output?.data?.value).toEqual(words(2));
  }
}

interface Target {
  runId: string;
  start: StartStep;
  /** Lets the handler end and checks that the run ended as an untouched one does. */
  endsUntouched(lateMax?: number): Promise<void>;
}

/** A run whose attempt is under way, with its start as it was overheard. */
async function target(text: string): Promise<Target> {
  const runId = await startText(text);
  await waitFor(`the handler of ${text}`, () => held.has(text));
  const start = startOf(runId);
  const before = await look(runId);
  return {
    runId,
    start,
    async endsUntouched(lateMax = 0) {
      // An attempt that runs for longer than a beat is bound: honest, and at any time.
      const after = await look(runId);
      expect(after.status).toBe(RunStatus.RUN_STATUS_RUNNING);
      expect({ ...after.step, status: 0 }).toEqual({ ...before.step, status: 0 });
      release(text);
      const result = await mesh.result(runId);
      expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
      expect(result.output?.data?.value).toEqual(words(text.split(" ").length));
      const history = await mesh.history(runId);
      expect(countOf(history, EventKind.EVENT_KIND_STEP_SUCCEEDED)).toBe(1);
      expect(countOf(history, EventKind.EVENT_KIND_COMPLETION_LATE)).toBeLessThanOrEqual(lateMax);
      const honest = [1, 5, 15].map((kind) => EventKind[kind]);
      const passing = [EventKind.EVENT_KIND_STEP_BOUND, EventKind.EVENT_KIND_COMPLETION_LATE];
      const kinds = history.filter(({ kind }) => !passing.includes(kind)).map(({ kind }) => EventKind[kind]);
      expect(kinds).toEqual(honest);
    },
  };
}

/** The start of a run as it was overheard, among whatever this file published itself. */
function startOf(runId: string): StartStep {
  for (const { bytes } of tap.on("start.")) {
    if (!bytes.includes(runId)) continue;
    const start = StartBatch.decode(bytes).starts.find((one) => one.runId === runId);
    if (start) return start;
  }
  throw new Error(`no start of run ${runId} was heard`);
}

async function look(runId: string) {
  const request = { namespace: "default", runId, omitPayloads: false };
  const { run, steps } = await unaryCall(mesh.runs, mesh.runs.getRun, request);
  const { attempt, failure, output, lostAttempts } = steps[0]!;
  return { status: run?.status, step: { attempt, failure, output, lostAttempts } };
}

const doneSubject = (start: StartStep): string => `done.${start.namespaceId}.${start.reportTo}`;
const counted = (metric: { series: ReadonlyMap<string, { value: number }> }): number =>
  [...metric.series.values()].reduce((sum, { value }) => sum + value, 0);
const drained = (stream: "TASKMESH_START" | "TASKMESH_DONE"): Promise<void> =>
  waitFor(`${stream} to be empty`, async () => (await tap.messages(stream)) === 0, 30_000, 100);

describe("on the broker", () => {
  it("garbage among completions is terminated and counted, and nothing of it comes again", async () => {
    const aim = await target("hold garbage done");
    const terminated = (mesh.coordinator.carrier as JetStreamCarrier).counters.terminated;
    const undecodable = counted(metrics.messagesUndecodable);
    const { namespaceId, reportTo } = aim.start;
    for (const namespace of [namespaceId, "nowhere", 4_294_967_295, 99_999_999_999, -1]) {
      await tap.publish(`done.${namespace}.${reportTo}`, ...garbage(1_000_000));
    }
    await work();
    await drained("TASKMESH_DONE");
    expect((mesh.coordinator.carrier as JetStreamCarrier).counters.terminated).toBeGreaterThan(terminated + 100);
    expect(counted(metrics.messagesUndecodable)).toBeGreaterThan(undecodable + 20);
    await aim.endsUntouched();
  });

  it("a truncated completion of a live attempt, whatever its length, ends nothing wrongly", async () => {
    const aim = await target("hold truncated completion here");
    const { runId, stepId, attempt, lease } = aim.start;
    const outcome = { $case: "failure" as const, value: nestedFailure(1) };
    const whole = Buffer.from(
      CompletionBatch.encode({ completions: [completion({ runId, stepId, attempt, lease, outcome })] }).finish(),
    );
    const undecodable = counted(metrics.messagesUndecodable);
    const pieces = Array.from({ length: whole.length - 1 }, (_, i) => whole.subarray(0, i + 1));
    await tap.publish(doneSubject(aim.start), ...pieces);
    await work();
    await drained("TASKMESH_DONE");
    expect(counted(metrics.messagesUndecodable)).toBe(undecodable + pieces.length);
    await aim.endsUntouched();
  });

  it("forged completions change no result, and each kind is counted", async () => {
    const aim = await target("hold forged completions");
    const { runId, stepId, attempt, lease, namespaceId, reportTo } = aim.start;
    const output = {
      $case: "output" as const,
      value: Payload.fromPartial({ data: { $case: "inline", value: words(666) } }),
    };
    const own: Partial<CompleteStep> = { runId, stepId, attempt, lease, outcome: output };
    const forge = async (namespace: number, fields: Partial<CompleteStep>): Promise<void> => {
      const bytes = CompletionBatch.encode({ completions: [completion({ ...own, ...fields })] }).finish();
      await tap.publish(`done.${namespace}.${reportTo}`, bytes);
    };
    const stale = counted(metrics.completionsStale);
    const late = counted(metrics.completionsLate);
    const undecodable = counted(metrics.messagesUndecodable);
    const forgedLease = "AAAAAAAAAAAAAAAAAAAAAA";
    await forge(namespaceId, { lease: forgedLease });
    await forge(namespaceId, { lease: forgedLease, attempt: 0 });
    await forge(namespaceId, { lease: forgedLease, attempt: 4_294_967_295 });
    await forge(namespaceId + 1, {});
    await forge(0, {});
    await forge(namespaceId, { runId: uuidv7() });
    for (const unknown of ["nobody", "", "steps.call", "__proto__", "constructor"]) {
      await forge(namespaceId, { stepId: unknown });
    }
    await forge(namespaceId, { item: 1 });
    await forge(namespaceId, { item: 4_294_967_295 });
    // Refused before they reach the pipeline.
    const implausible: Partial<CompleteStep>[] = [
      { runId: "" },
      { runId: runId.toUpperCase() },
      { runId: `${runId}\u0000` },
      { runId: "1'; drop table runs; --" },
      { lease: "" },
      { lease: "a\u0000b" },
      { lease: "x".repeat(10_000) },
      { stepId: "s".repeat(10_000) },
      { sessionId: "\u0000" },
      { outcome: undefined },
    ];
    for (const fields of implausible) await forge(namespaceId, fields);
    await tap.publish(doneSubject(aim.start), negativeAttempt(own));
    await work();
    await drained("TASKMESH_DONE");
    expect(counted(metrics.messagesUndecodable)).toBe(undecodable + implausible.length);
    expect(counted(metrics.completionsStale) - stale + counted(metrics.completionsLate) - late).toBeGreaterThanOrEqual(
      13,
    );
    // A report of this attempt under another lease can't be told from a late one: it is on record as late, and has no other effect.
    await aim.endsUntouched(1);
  });

  it("an output that breaks the contract is no success, whatever worker sent it", async () => {
    for (const bytes of [Buffer.from([0x08]), randomBytes(3, 100), Buffer.from([0x0a, 0x01, 0x41])]) {
      const text = `hold broken output ${bytes.length}`;
      const runId = await startText(text);
      await waitFor("the handler", () => held.has(text));
      const start = startOf(runId);
      const { stepId, attempt, lease } = start;
      const outcome = {
        $case: "output" as const,
        value: Payload.fromPartial({ data: { $case: "inline", value: bytes } }),
      };
      const forged = completion({ runId, stepId, attempt, lease, outcome });
      await tap.publish(doneSubject(start), CompletionBatch.encode({ completions: [forged] }).finish());
      const result = await mesh.result(runId);
      expect(result.status).toBe(RunStatus.RUN_STATUS_FAILED);
      expect(JSON.stringify(result.failure)).toContain("OUTPUT_INVALID");
      expect(countOf(await mesh.history(runId), EventKind.EVENT_KIND_STEP_SUCCEEDED)).toBe(0);
      release(text);
    }
    await work();
  });

  it("garbage and forged starts, and garbage among probes, cost the worker nothing", async () => {
    const aim = await target("hold garbage start");
    const lane = tap.on("start.")[0]!.subject;
    const handlers = (): number => held.get("hold garbage start")!.length;
    await waitFor("a probe", () => tap.on("probe.").length > 0);
    const probe = tap.on("probe.")[0]!.subject;
    await tap.publish(lane, ...garbage(1_000_000));
    const forged = { ...aim.start, runId: uuidv7() };
    for (const fields of [
      { lease: "neverGivenneverGiven01" },
      { lease: "neverGivenneverGiven02", method: "acme.pages.v1.PageActions/Nothing" },
      { lease: "neverGivenneverGiven03", method: "../../etc/passwd\u0000" },
      { lease: "neverGivenneverGiven04", input: undefined },
      { lease: "neverGivenneverGiven05", reportTo: "nobody" },
      { lease: "neverGivenneverGiven06", reportTo: "a.b.>" },
      { lease: "neverGivenneverGiven07", startToCloseMs: 4_294_967_295, runRemainingMs: 18_446_744_073_709_551_615n },
    ]) {
      await tap.publish(
        lane,
        StartBatch.encode(StartBatch.fromPartial({ starts: [{ ...forged, ...fields }] })).finish(),
      );
    }
    for (const bytes of garbage(1_000_000)) await tap.publish(probe, bytes);
    await work();
    // Those that look like starts run: at-least-once is all that a handler is promised. None of it is recorded.
    await waitFor("the forged starts to run", () => handlers() > 1);
    const { workers } = await unaryCall(mesh.registry, mesh.registry.listWorkers, { namespace: "default" });
    expect(workers).toHaveLength(1);
    await aim.endsUntouched();
    await work();
  });
});

/** The completion with `attempt` as the varint of -1, which no encoder of an unsigned field writes. */
function negativeAttempt(own: Partial<CompleteStep>): Buffer {
  const rest = CompletionBatch.encode({
    completions: [completion({ ...own, attempt: 0, lease: "AAAAAAAAAAAAAAAAAAAAAA" })],
  }).finish();
  const length = rest.length;
  const inner = Buffer.concat([
    Buffer.from(rest.subarray(length > 129 ? 3 : 2)),
    Buffer.from([0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
  ]);
  const size = inner.length;
  const prefix = size > 127 ? [0x0a, (size & 0x7f) | 0x80, size >> 7] : [0x0a, size];
  return Buffer.concat([Buffer.from(prefix), inner]);
}

const identity = (bytes: Buffer): Buffer => bytes;
const mebi = 1024 * 1024;

/** Sends raw messages as a stream of the method, and answers with the status that the call ended with. */
async function rawStream(path: string, messages: readonly Buffer[]): Promise<ServiceError | undefined> {
  const client = new Client(formatAddress(mesh.address), credentials.createInsecure(), {
    "grpc.max_send_message_length": 16 * mebi,
  });
  try {
    return await new Promise((resolve) => {
      const deadline = Date.now() + 30_000;
      const call = client.makeBidiStreamRequest(path, identity, identity, { deadline });
      call.on("data", () => {});
      call.on("error", resolve);
      call.on("end", () => resolve(undefined));
      for (const message of messages) call.write(message);
      call.end();
    });
  } finally {
    client.close();
  }
}

/** A frame of a gRPC message that claims to be `length` long and isn't, over bare HTTP/2. The grpc-status, if one came. */
function rawFrame(path: string, length: number, bytes: Buffer): Promise<string | undefined> {
  return new Promise((resolve) => {
    const session = connectHttp2(`http://${formatAddress(mesh.address)}`);
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
    });
    let answer: string | undefined;
    const take = (headers: Record<string, unknown>): void => {
      if (headers["grpc-status"] !== undefined) answer = String(headers["grpc-status"]);
    };
    stream.on("response", take);
    stream.on("trailers", take);
    stream.on("data", () => {});
    stream.on("error", () => {});
    session.on("error", () => {});
    stream.on("close", () => {
      session.destroy();
      resolve(answer);
    });
    const head = Buffer.alloc(5);
    head.writeUInt32BE(length, 1);
    stream.end(Buffer.concat([head, bytes]));
  });
}

describe.each(["/taskmesh.v1.RegistryService/Connect", "/taskmesh.v1.RelayService/Relay"])(
  "on the stream %s",
  (path) => {
    it("garbage ends the call with a typed error, and nothing else", async () => {
      const aim = await target(`hold stream ${path}`);
      const refused = [status.INVALID_ARGUMENT, status.RESOURCE_EXHAUSTED, status.NOT_FOUND];
      let calls = 0;
      for (const bytes of garbage(mebi)) {
        const error = await rawStream(path, [bytes]);
        expect(error, `after ${bytes.subarray(0, 20).toString("hex")}`).toBeDefined();
        expect(refused, error!.message).toContain(error!.code);
        calls += 1;
      }
      expect(calls).toBeGreaterThan(100);
      await work();
      await aim.endsUntouched();
    });

    it("messages of 4 MiB and a byte less are read, a byte more is RESOURCE_EXHAUSTED", async () => {
      for (const size of [4 * mebi - 1, 4 * mebi]) {
        expect((await rawStream(path, [openGroups(size)]))?.code).toBe(status.INVALID_ARGUMENT);
      }
      expect((await rawStream(path, [openGroups(4 * mebi + 1)]))?.code).toBe(status.RESOURCE_EXHAUSTED);
      await work();
    });

    it("lengths that are lies end the call", async () => {
      expect(await rawFrame(path, 0x4000_0000, gibibytePrefix)).toBe(String(status.RESOURCE_EXHAUSTED));
      expect(await rawFrame(path, 0xffff_ffff, gibibytePrefix)).toBe(String(status.RESOURCE_EXHAUSTED));
      // Cut inside a frame: no message came, so no session began. The call ends, however.
      expect(await rawFrame(path, 100, gibibytePrefix)).toBeDefined();
      await work();
    });
  },
);
