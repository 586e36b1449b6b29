import { randomUUID } from "node:crypto";
import { context, propagation, trace } from "@opentelemetry/api";
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-node";
import {
  ActionFailure,
  type AnyAction,
  defineAction,
  fail,
  startWorker,
  type Worker,
  type WorkerOptions,
} from "@taskmesh/action-sdk";
import { CancelReason, type CompleteStep, StartStep } from "@taskmesh/proto";
import { type Carrier, createLogger, startTelemetry, statusError, type WorkListener } from "@taskmesh/runtime";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type CoordinatorStandIn, type StandInOptions, startStandIn } from "../fixtures/coordinator-stand-in.js";
import { PageActionsService, pageDescriptors } from "../fixtures/page-actions.js";

const method = "acme.pages.v1.PageActions/Score";
const input = (text: string): Buffer => PageActionsService.score.requestSerialize({ text });
const words = (text: string): number => text.split(/\s+/).length;
const score = defineAction(PageActionsService.score, async ({ text }) => ({ words: words(text) }));
const bound = { timeout: 20_000, interval: 10 };

let mesh: CoordinatorStandIn;
let worker: Worker | undefined;
let logs: string[] = [];

afterEach(async () => {
  await worker?.stop();
  worker = undefined;
  await mesh.stop();
});

async function setUp(
  actions: readonly AnyAction[],
  options: Partial<WorkerOptions> = {},
  standIn: StandInOptions = {},
): Promise<void> {
  mesh = await startStandIn(standIn);
  logs = [];
  worker = await startWorker({
    descriptors: pageDescriptors,
    actions,
    address: mesh.address,
    carrier: mesh.carrier,
    handleSignals: false,
    quiet: true,
    logger: createLogger("worker", { level: "debug", write: (line) => logs.push(line) }),
    ...options,
  });
}

async function completionOf(lease: string): Promise<CompleteStep> {
  return vi.waitFor(() => {
    const found = mesh.completionOf(lease);
    if (!found) throw new Error("no completion yet");
    return found;
  }, bound);
}

const outputOf = (completion: CompleteStep): number | undefined =>
  completion.outcome?.$case === "output" && completion.outcome.value.data?.$case === "inline"
    ? PageActionsService.score.responseDeserialize(completion.outcome.value.data.value).words
    : undefined;

const failureOf = (completion: CompleteStep) =>
  completion.outcome?.$case === "failure" ? completion.outcome.value : undefined;

/** A handler that waits to be let go, and tells how many wait. */
function gate() {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  const state = { running: 0, most: 0, aborted: [] as string[] };
  const action = defineAction(PageActionsService.score, async ({ text }, { signal }) => {
    state.running++;
    state.most = Math.max(state.most, state.running);
    signal.addEventListener("abort", () => state.aborted.push((signal.reason as { code: string }).code));
    await opened;
    state.running--;
    return { words: words(text) };
  });
  return { action, open, state };
}

describe("a worker's registration", () => {
  it("says what it serves, and beats with free slots and the newest nonce", async () => {
    await setUp([score], { slots: 4, labels: { zone: "a" }, version: "1.2.3" });
    expect(mesh.registers[0]).toMatchObject({
      namespace: "default",
      sessionId: "",
      labels: { zone: "a" },
      version: "1.2.3",
      queues: [{ taskQueue: "acme.pages.v1.PageActions", methods: [method], slots: 4 }],
    });
    expect(worker?.sessionId).toBe(mesh.sessionId);
    mesh.probe("nonce-1");
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.nonce).toBe("nonce-1"), bound);
    expect(mesh.beats.at(-1)?.freeSlots).toEqual([{ taskQueue: "acme.pages.v1.PageActions", free: 4, slots: 4 }]);
  });

  it("prints one line per action when it holds", async () => {
    const printed: string[] = [];
    const write = vi.spyOn(process.stdout, "write").mockImplementation((chunk) => printed.push(String(chunk)) > 0);
    try {
      await setUp([score], { quiet: false });
    } finally {
      write.mockRestore();
    }
    expect(printed).toEqual([`registered ${method}, 10 slots\n`]);
  });

  it("is refused for good on what a retry can't mend", async () => {
    mesh = await startStandIn();
    mesh.refusal = statusError({ reason: "METHOD_TAKEN", message: "Score belongs to a chain" });
    const starting = startWorker({
      descriptors: pageDescriptors,
      actions: [score],
      address: mesh.address,
      logger: createLogger("worker", { level: "silent" }),
    });
    await expect(starting).rejects.toMatchObject({ reason: "METHOD_TAKEN", message: "Score belongs to a chain" });
  });

  it("is tried again while the coordinator is away or draining", async () => {
    mesh = await startStandIn();
    mesh.refusal = statusError({ reason: "DRAINING", message: "going away" });
    const starting = startWorker({
      descriptors: pageDescriptors,
      actions: [score],
      address: mesh.address,
      carrier: mesh.carrier,
      quiet: true,
      handleSignals: false,
      logger: createLogger("worker", { level: "silent" }),
    });
    await vi.waitFor(() => expect(mesh.registers.length).toBeGreaterThan(1), bound);
    const { port } = mesh;
    mesh.kill();
    mesh.refusal = undefined;
    await mesh.listen(port);
    worker = await starting;
    expect(worker.address).toBe(mesh.address);
  });

  it("gives up when its signal aborts before it held", async () => {
    mesh = await startStandIn();
    mesh.kill();
    const abort = new AbortController();
    const logger = createLogger("worker", { level: "silent" });
    const starting = startWorker({
      descriptors: pageDescriptors,
      actions: [score],
      address: mesh.address,
      signal: abort.signal,
      logger,
    });
    abort.abort();
    await expect(starting).rejects.toThrow(/stopped before its registration held/);
  });
});

describe("a worker's session", () => {
  it("is resumed under its id after the coordinator died, and work goes on", async () => {
    const { action, open } = gate();
    await setUp([action]);
    const start = mesh.dispatch(method, input("a b c"));
    await vi.waitFor(() => expect(worker?.inFlight).toBe(1), bound);
    const { port } = mesh;
    mesh.kill();
    await mesh.listen(port);
    await vi.waitFor(() => expect(mesh.registers.length).toBe(2), bound);
    expect(mesh.registers[1]?.sessionId).toBe(mesh.sessionId);
    const seen = mesh.beats.length;
    await vi.waitFor(() => expect(mesh.beats.slice(seen).flatMap((beat) => beat.attempts)).not.toEqual([]), bound);
    open();
    expect(outputOf(await completionOf(start.lease))).toBe(3);
  });

  it("is torn down and opened again when beats stay unanswered", async () => {
    await setUp([score]);
    mesh.muted = true;
    await vi.waitFor(() => expect(mesh.registers.length).toBeGreaterThan(1), bound);
    mesh.muted = false;
    expect(outputOf(await completionOf(mesh.dispatch(method, input("a b")).lease))).toBe(2);
  });

  it("moves on when the coordinator drains, without ending the session", async () => {
    await setUp([score]);
    mesh.nextReply = { drain: true };
    await vi.waitFor(() => expect(mesh.registers.length).toBe(2), bound);
    expect(mesh.registers[1]?.sessionId).toBe(mesh.sessionId);
    expect(mesh.sessionsEnded).toBe(0);
  });

  it("is begun anew when the mesh has forgotten it", async () => {
    await setUp([score]);
    mesh.refusal = statusError({ reason: "SESSION_NOT_FOUND", message: "no such session" });
    mesh.nextReply = { drain: true };
    await vi.waitFor(() => expect(mesh.registers.at(-1)?.sessionId).toBe(mesh.sessionId), bound);
    await vi.waitFor(() => expect(mesh.registers.at(-1)?.sessionId).toBe(""), bound);
    mesh.refusal = undefined;
    mesh.sessionId = randomUUID();
    await vi.waitFor(() => expect(worker?.sessionId).toBe(mesh.sessionId), bound);
    expect(outputOf(await completionOf(mesh.dispatch(method, input("a")).lease))).toBe(1);
  });

  it("ends in order on stop", async () => {
    await setUp([score]);
    await worker?.stop();
    await worker?.done;
    expect(mesh.sessionsEnded).toBe(1);
    expect(mesh.beats.at(-1)?.draining).toBe(true);
  });
});

describe("a work transport that is opened again", () => {
  it("is drained first: a start that was on its way runs, and costs no attempt", async () => {
    const late = StartStep.fromPartial({
      lease: randomUUID(),
      runId: randomUUID(),
      stepId: "late",
      attempt: 1,
      method,
    });
    late.reportTo = "c1";
    late.input = {
      contract: "",
      keyId: "",
      sizeBytes: 3n,
      sha256: Buffer.alloc(0),
      data: { $case: "inline", value: input("a b") },
    };
    const calls: string[] = [];
    const workTransport: Carrier["workTransport"] = (session) => {
      const inner = mesh.carrier.workTransport(session);
      let listener: WorkListener | undefined;
      return {
        kind: inner.kind,
        complete: (...report) => inner.complete(...report),
        emit: (output) => inner.emit(output),
        open: (lanes, to) => {
          listener = to;
          return inner.open(lanes, to);
        },
        drain: async () => {
          calls.push("drain");
          const onItsWay = { taskQueue: "acme.pages.v1.PageActions", start: late, redelivered: false };
          listener?.onStart({ ...onItsWay, ack() {}, release() {} });
          await inner.drain();
        },
        close: () => {
          calls.push("close");
          return inner.close();
        },
      };
    };
    await setUp([score], { carrier: { workTransport } as Carrier });
    mesh.nextReply = { reopenTransport: true };
    expect(outputOf(await completionOf(late.lease))).toBe(2);
    expect(outputOf(await completionOf(mesh.dispatch(method, input("a")).lease))).toBe(1);
    expect(calls).toEqual(["drain", "close"]);
  });
});

describe("an attempt", () => {
  it("runs, reports with lease and session, and is acked once its completion is stored", async () => {
    await setUp([score]);
    const start = mesh.dispatch(method, input("a b"), { attempt: 3, stepId: "count" });
    const completion = await completionOf(start.lease);
    expect(outputOf(completion)).toBe(2);
    expect(completion).toMatchObject({ runId: start.runId, stepId: "count", attempt: 3, sessionId: mesh.sessionId });
    await vi.waitFor(() => expect(mesh.depth).toBe(0), bound);
  });

  it("takes no more starts than it has slots", async () => {
    const { action, open, state } = gate();
    await setUp([action], { slots: 3 });
    const starts = Array.from({ length: 9 }, () => mesh.dispatch(method, input("a")));
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.freeSlots[0]?.free).toBe(0), bound);
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.attempts).toHaveLength(3), bound);
    expect(state.most).toBe(3);
    open();
    await Promise.all(starts.map((start) => completionOf(start.lease)));
    expect(state.most).toBe(3);
  });

  it("is listed in beats with its progress, and its start is acked when bound", async () => {
    let open: () => void = () => {};
    const action = defineAction(PageActionsService.score, async (_input, { progress }) => {
      progress(40, "four of ten");
      await new Promise<void>((resolve) => {
        open = resolve;
      });
      return { words: 1 };
    });
    await setUp([action]);
    const start = mesh.dispatch(method, input("a"));
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.attempts[0]?.lease).toBe(start.lease), bound);
    expect(mesh.beats.at(-1)?.attempts[0]).toMatchObject({
      runId: start.runId,
      attempt: 1,
      progress: { percent: 40, message: "four of ten" },
    });
    expect(mesh.depth).toBe(1);
    mesh.nextReply = { boundLeases: [start.lease] };
    await vi.waitFor(() => expect(mesh.depth).toBe(0), bound);
    open();
    await completionOf(start.lease);
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.attempts).toEqual([]), bound);
  });

  it.each([
    ["a plain error", () => new Error("boom"), { reason: "HANDLER_ERROR", message: "boom", retryable: true }],
    [
      "a final failure",
      () => fail.final("PAGE_GONE", "gone"),
      { reason: "PAGE_GONE", message: "gone", retryable: false },
    ],
    [
      "a retryable failure",
      () => new ActionFailure("RATE_LIMITED", "later", { retryable: true }),
      { reason: "RATE_LIMITED", retryable: true },
    ],
  ])("reports %s as thrown", async (_what, thrown, expected) => {
    const action = defineAction(PageActionsService.score, async (_input, { log }): Promise<{ words: number }> => {
      log.info("about to fail", { page: 1 });
      throw thrown();
    });
    await setUp([action]);
    const completion = await completionOf(mesh.dispatch(method, input("a")).lease);
    expect(failureOf(completion)).toMatchObject(expected);
    expect(completion.logs[0]).toMatchObject({ message: "about to fail", fieldsJson: '{"page":1}' });
    expect(logs.join("")).toContain("about to fail");
  });

  it("refuses garbage and truncated input, and output that breaks the contract, for good", async () => {
    const action = defineAction(
      PageActionsService.score,
      async () => ({ words: "many" }) as unknown as { words: number },
    );
    await setUp([action]);
    for (const bytes of [
      Buffer.from([0xff, 0xff, 0xff]),
      input("hello").subarray(0, 3),
      Buffer.from([0x0a, 1, 0xff]),
    ]) {
      expect(failureOf(await completionOf(mesh.dispatch(method, bytes).lease))).toMatchObject({
        reason: "INPUT_INVALID",
        retryable: false,
      });
    }
    expect(failureOf(await completionOf(mesh.dispatch(method, input("a")).lease))).toMatchObject({
      reason: "OUTPUT_INVALID",
      retryable: false,
    });
  });

  it("is refused when the worker does not implement its method", async () => {
    await setUp([score]);
    const start = mesh.dispatch("acme.pages.v1.PageActions/Guarded", input("a"));
    expect(failureOf(await completionOf(start.lease))).toMatchObject({ reason: "METHOD_UNKNOWN", retryable: true });
  });

  it("times out: the signal aborts, and a handler that never returns is reported and keeps its slot", async () => {
    const { action, open, state } = gate();
    await setUp([action], { slots: 1 });
    const start = mesh.dispatch(method, input("a"), { startToCloseMs: 50 });
    const completion = await completionOf(start.lease);
    expect(failureOf(completion)).toMatchObject({ reason: "START_TO_CLOSE_TIMEOUT", retryable: true });
    expect(state.aborted).toEqual(["TIMED_OUT"]);
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.attempts).toEqual([]), bound);
    expect(mesh.beats.at(-1)?.freeSlots[0]?.free).toBe(0);
    open();
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.freeSlots[0]?.free).toBe(1), bound);
    expect(mesh.completions).toHaveLength(1);
  });

  it("that ends by its cancel is reported as cancelled; one whose lease is lost reports nothing", async () => {
    const action = defineAction(PageActionsService.score, async ({ text }, { signal }): Promise<{ words: number }> => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw new Error(`${text} stopped`);
    });
    await setUp([action]);
    const cancelled = mesh.dispatch(method, input("one"));
    const lost = mesh.dispatch(method, input("two"));
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.attempts).toHaveLength(2), bound);
    mesh.nextReply = {
      cancels: [
        { lease: cancelled.lease, reason: CancelReason.CANCEL_REASON_CANCELLED },
        { lease: lost.lease, reason: CancelReason.CANCEL_REASON_LEASE_LOST },
      ],
    };
    expect((await completionOf(cancelled.lease)).outcome).toEqual({
      $case: "cancelled",
      value: { message: "one stopped" },
    });
    await vi.waitFor(() => expect(worker?.inFlight).toBe(0), bound);
    await vi.waitFor(() => expect(mesh.depth).toBe(0), bound);
    expect(mesh.completions).toHaveLength(1);
  });

  it("passes the trace of its start on, as a span of its own where the process traces", async () => {
    const parent = { traceparent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` };
    const seen: Record<string, string>[] = [];
    const action = defineAction(PageActionsService.score, async (_input, context) => {
      seen.push(context.trace.headers());
      await Promise.resolve();
      seen.push({ active: trace.getActiveSpan()?.spanContext().spanId ?? "" });
      return { words: 1 };
    });
    await setUp([action]);
    await completionOf(mesh.dispatch(method, input("a"), {}, parent).lease);
    expect(seen.splice(0)).toEqual([parent, { active: "" }]);
    await completionOf(mesh.dispatch(method, input("a")).lease);
    expect(seen.splice(0)).toEqual([{}, { active: "" }]);

    const exporter = new InMemorySpanExporter();
    const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
    provider.register();
    const telemetry = await startTelemetry("test", {});
    try {
      const start = mesh.dispatch(method, input("a"), {}, parent);
      await completionOf(start.lease);
      const [span] = exporter.getFinishedSpans();
      expect(span?.name).toBe(`attempt ${method}`);
      expect(span?.spanContext().traceId).toBe("a".repeat(32));
      expect(span?.attributes).toMatchObject({ "taskmesh.run.id": start.runId, "taskmesh.attempt": 1 });
      const { traceId, spanId } = span!.spanContext();
      expect(seen).toMatchObject([{ traceparent: `00-${traceId}-${spanId}-01` }, { active: spanId }]);
    } finally {
      await telemetry.stop();
      await provider.shutdown();
      trace.disable();
      context.disable();
      propagation.disable();
    }
  });
});

describe("a start that may be a repetition", () => {
  it("is claimed first, and runs under the new lease", async () => {
    const { action, open } = gate();
    await setUp([action], {}, { ackWaitMs: 300 });
    mesh.onClaim = (request) => ({
      verdict: {
        $case: "start",
        value: StartStep.fromPartial({ ...start, attempt: request.attempt + 1, lease: "new" }),
      },
    });
    const start = mesh.dispatch(method, input("a b c"), { exclusive: true });
    open();
    const completion = await completionOf("new");
    expect(completion).toMatchObject({ attempt: 2, runId: start.runId });
    expect(outputOf(completion)).toBe(3);
    expect(mesh.claims[0]).toMatchObject({ lease: start.lease, sessionId: mesh.sessionId, attempt: 1 });
    expect(mesh.completionOf(start.lease)).toBeUndefined();
  });

  it("is dropped and acked when the claim says so", async () => {
    await setUp([score]);
    mesh.dispatch(method, input("a"), { exclusive: true });
    await vi.waitFor(() => expect(mesh.claims).toHaveLength(1), bound);
    await vi.waitFor(() => expect(mesh.depth).toBe(0), bound);
    expect(mesh.completions).toEqual([]);
    await vi.waitFor(() => expect(worker?.inFlight).toBe(0), bound);
  });

  it("is claimed again while the coordinator can't answer", async () => {
    await setUp([score]);
    let asked = 0;
    mesh.onClaim = () =>
      ++asked < 3
        ? statusError({ reason: "DATABASE_UNAVAILABLE", message: "try again" })
        : { verdict: { $case: "drop", value: "done" } };
    mesh.dispatch(method, input("a"), { exclusive: true });
    await vi.waitFor(() => expect(mesh.depth).toBe(0), bound);
    expect(asked).toBe(3);
  });

  it("is not run twice while its lease runs here, nor after it was reported", async () => {
    const { action, open, state } = gate();
    await setUp([action], {}, { ackWaitMs: 500 });
    const start = mesh.dispatch(method, input("a b"));
    mesh.publish(start, randomUUID());
    await vi.waitFor(() => expect(state.running).toBe(1), bound);
    open();
    await completionOf(start.lease);
    mesh.publish(start, randomUUID());
    await vi.waitFor(() => expect(mesh.completions.length).toBeGreaterThan(1), bound);
    await vi.waitFor(() => expect(mesh.depth).toBe(0), bound);
    expect(state.most).toBe(1);
    expect(mesh.claims).toEqual([]);
  });
});

describe("completions and payloads", () => {
  it("are published again when the coordinator asks", async () => {
    await setUp([score]);
    const start = mesh.dispatch(method, input("a"));
    await completionOf(start.lease);
    mesh.completions.length = 0;
    mesh.nextReply = { republish: true };
    expect(outputOf(await completionOf(start.lease))).toBe(1);
  });

  it("travel by reference above 128 KiB, in and out, unchanged", async () => {
    const echo = defineAction(PageActionsService.echo, async ({ data }) => ({ data }));
    await setUp([echo]);
    const data = Buffer.alloc(20 * 1024 * 1024, "0123456789");
    const payload = mesh.keep(PageActionsService.echo.requestSerialize({ data }));
    const { outcome } = await completionOf(mesh.dispatch("acme.pages.v1.PageActions/Echo", payload).lease);
    const output = outcome?.$case === "output" ? outcome.value : undefined;
    expect(output?.data?.$case).toBe("reference");
    const stored = mesh.payloads.get(output?.data?.value as string);
    expect(Buffer.compare(Buffer.from(PageActionsService.echo.responseDeserialize(stored!).data), data)).toBe(0);
  });

  it.each([
    [0, "inline"],
    [1, "reference"],
  ])("with %i bytes above the inline bound travel as %s", async (above, kind) => {
    // Tag and length of the field take 4 bytes.
    const size = 128 * 1024 - 4 + above;
    const echo = defineAction(PageActionsService.echo, async () => ({ data: new Uint8Array(size) }));
    await setUp([echo]);
    const { outcome } = await completionOf(mesh.dispatch("acme.pages.v1.PageActions/Echo", Buffer.alloc(0)).lease);
    expect(outcome?.$case === "output" && outcome.value.data?.$case).toBe(kind);
  });

  it("above 64 MiB are refused for good", async () => {
    const echo = defineAction(PageActionsService.echo, async () => ({ data: new Uint8Array(64 * 1024 * 1024) }));
    await setUp([echo]);
    const completion = await completionOf(mesh.dispatch("acme.pages.v1.PageActions/Echo", Buffer.alloc(0)).lease);
    expect(failureOf(completion)).toMatchObject({ reason: "PAYLOAD_TOO_LARGE", retryable: false });
  });

  it("that don't match their hash never reach the handler", async () => {
    await setUp([score]);
    const payload = mesh.keep(input("a"));
    payload.sha256 = Buffer.alloc(32);
    expect(failureOf(await completionOf(mesh.dispatch(method, payload).lease))).toMatchObject({
      reason: "PAYLOAD_UNREADABLE",
      retryable: true,
    });
  });
});

describe("a worker that stops", () => {
  it("lets what is in flight end, and takes nothing more", async () => {
    const { action, open } = gate();
    await setUp([action], { slots: 1 });
    const first = mesh.dispatch(method, input("a b"));
    await vi.waitFor(() => expect(worker?.inFlight).toBe(1), bound);
    const second = mesh.dispatch(method, input("a"));
    const stopped = worker?.stop();
    await vi.waitFor(() => expect(mesh.beats.at(-1)?.draining).toBe(true), bound);
    open();
    await stopped;
    expect(outputOf(await completionOf(first.lease))).toBe(2);
    expect(mesh.completionOf(second.lease)).toBeUndefined();
    expect(mesh.depth).toBe(1);
  });

  it("gives up what does not end in time without a word, so that no attempt is burnt", async () => {
    const action = defineAction(PageActionsService.score, async (_input, { signal }): Promise<{ words: number }> => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      throw signal.reason;
    });
    await setUp([action], { drainTimeoutMs: 50 });
    mesh.dispatch(method, input("a"));
    await vi.waitFor(() => expect(worker?.inFlight).toBe(1), bound);
    await worker?.stop();
    expect(mesh.completions).toEqual([]);
    expect(mesh.depth).toBe(1);
    expect(mesh.sessionsEnded).toBe(1);
  });
});
