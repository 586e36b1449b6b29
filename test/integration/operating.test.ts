/** People acting on runs, over real servers and embedded: hold, end, change, mend, as the guide shows it. */
import { defineAction, fail } from "@taskmesh/action-sdk";
import {
  EventKind,
  type GetRunResponse,
  ListRunsRequest,
  RunStatus,
  StepStatus,
  UpdateRunRequest,
} from "@taskmesh/proto";
import { isStatusError, parseChainDocument, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { guideChain, TripActionsService, tripDescriptors } from "../fixtures/trip-actions.js";

const pay = "acme.trips.v1.Trips/Pay";
const { RUN_STATUS_BROKEN, RUN_STATUS_PAUSED, RUN_STATUS_RUNNING, RUN_STATUS_SUCCEEDED } = RunStatus;
const wholeTrip = "acme.trips.v1.Trips/Whole";
const quotes = `contract:
  name: acme.trips.v1.Trips/Quotes
  input: { places: repeated string }
  output: { ids: repeated string }
on_unhandled: BREAK
steps:
  - id: quotes
    each: { items: input.places, max_parallel: 1 }
    call: acme.trips.v1.TripActions/Quote
    input: { place: each.value }
output:
  ids: "steps.quotes.output.map(quote, quote.id)"
`;
const whole = `contract:
  name: ${wholeTrip}
  input: { traveller: string }
  output: { id: string }
steps:
  - id: trip
    call: ${pay}
    input: { traveller: input.traveller, place: "'Rome'" }
output:
  id: steps.trip.output.id
`;
const bound = { timeout: 20_000, interval: 25 };

describe.each(["servers", "embedded"] as const)("on %s", (on) => {
  let mesh: InProcessMesh;
  /** Traveller to what the bank says. */
  const declined = new Set<string>();
  /** Hotels whose answer is held back. */
  const gates = new Map<string, Promise<void>>();
  /** Places without a quote, and how often each was quoted. */
  const closed = new Set<string>();
  const quoted = new Map<string, number>();

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    const actions = [
      defineAction(TripActionsService.bookHotel, async ({ place }) => {
        await gates.get(place);
        return { code: "H123" };
      }),
      defineAction(TripActionsService.quote, ({ place }) => {
        if (closed.has(place)) throw fail.final("NO_ROOM", "it is closed");
        quoted.set(place, (quoted.get(place) ?? 0) + 1);
        return { id: `${place}-${quoted.get(place)}`, cents: 1 };
      }),
      defineAction(TripActionsService.charge, ({ traveller, cents }) => {
        if (declined.has(traveller)) throw fail.final("CARD_DECLINED", "the card is declined");
        return { id: `paid by ${traveller}`, cents };
      }),
    ];
    const embedded = on === "embedded" ? { carrier: mesh.coordinator.carrier } : {};
    await mesh.serve(actions, { descriptors: tripDescriptors, ...embedded });
    await mesh.putChain(guideChain("failure.md", pay));
    for (const text of [quotes, whole]) await mesh.putChain(parseChainDocument(text).spec!);
  }, 60_000);
  afterAll(() => mesh.stop());

  const start = (traveller: string, place = "Rome", more = {}) =>
    mesh.start({ method: pay, input: { $case: "json", value: JSON.stringify({ traveller, place }) }, ...more });
  const show = (runId: string): Promise<GetRunResponse> =>
    unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: false });
  const asked = (runId: string) => ({ namespace: "default", runId, reason: "the bank called", actor: "ann" });
  const breakOne = async (traveller: string): Promise<string> => {
    declined.add(traveller);
    const runId = await start(traveller);
    expect((await mesh.result(runId)).status).toBe(RUN_STATUS_BROKEN);
    declined.delete(traveller);
    return runId;
  };
  const output = async (runId: string): Promise<string> => {
    const result = await mesh.result(runId);
    expect(result.failure).toBeUndefined();
    const { data } = result.output ?? {};
    if (data?.$case !== "reference") return Buffer.from(data?.value ?? "").toString("latin1");
    const chunks: Uint8Array[] = [];
    const stream = mesh.payloads.getPayload({ namespace: "default", reference: data.value });
    for await (const { chunk } of stream) chunks.push(chunk);
    return Buffer.concat(chunks).toString("latin1");
  };
  const refusal = (call: Promise<unknown>): Promise<string> =>
    call.then(
      () => "none",
      (error: unknown) => (isStatusError(error) ? error.reason : String(error)),
    );

  it("a broken run answers whoever waits, and goes on when its step is retried", async () => {
    declined.add("bob");
    const runId = await start("bob");
    const waited = await mesh.result(runId);
    expect(waited).toMatchObject({ status: RUN_STATUS_BROKEN, failure: { reason: "CARD_DECLINED" } });
    const broken = await show(runId);
    expect(broken.run).toMatchObject({ status: RUN_STATUS_BROKEN, brokenSteps: ["charge"] });
    declined.delete("bob");
    const { run } = await unaryCall(mesh.runs, mesh.runs.retryStep, { ...asked(runId), stepIds: [], input: undefined });
    expect(run?.status === RUN_STATUS_RUNNING || run?.status === RUN_STATUS_SUCCEEDED).toBe(true);
    expect(await output(runId)).toContain("paid by bob");
    const history = await mesh.history(runId);
    const retried = history.find(({ kind }) => kind === EventKind.EVENT_KIND_STEP_RETRIED);
    expect(retried).toMatchObject({ stepId: "charge", note: "the bank called", actor: "ann" });
  });

  it("an edited input is checked, used and shown", async () => {
    const runId = await breakOne("eve");
    const retry = (json: string) =>
      unaryCall(mesh.runs, mesh.runs.retryStep, {
        ...asked(runId),
        stepIds: ["charge"],
        input: { $case: "json", value: json },
      });
    expect(await refusal(retry('{"traveler":"x"}'))).toBe("INPUT_INVALID");
    await retry('{"traveller":"uncle","cents":5}');
    expect(await output(runId)).toContain("paid by uncle");
    const step = (await show(runId)).steps.find(({ stepId }) => stepId === "charge");
    expect(step).toMatchObject({ status: StepStatus.STEP_STATUS_SUCCEEDED, attempt: 2 });
  });

  it("a step is skipped with an output that fits its contract, and not without", async () => {
    const runId = await breakOne("kim");
    const skip = (json?: string) =>
      unaryCall(mesh.runs, mesh.runs.skipStep, {
        ...asked(runId),
        stepId: "charge",
        output: json === undefined ? undefined : { $case: "json", value: json },
      });
    expect(await refusal(skip())).toBe("OUTPUT_NEEDED");
    expect(await refusal(skip('{"cents":"many"}'))).toBe("OUTPUT_INVALID");
    await skip('{"id":"paid in cash","cents":400}');
    expect(await output(runId)).toContain("paid in cash");
    expect(await refusal(skip("{}"))).toBe("RUN_ENDED");
  });

  it("a paused run records what runs, starts nothing, and goes on", async () => {
    let open = (): void => {};
    gates.set("Oslo", new Promise((resolve) => (open = resolve)));
    const runId = await start("ann", "Oslo");
    const paused = await unaryCall(mesh.runs, mesh.runs.pauseRun, asked(runId));
    expect(paused.run?.status).toBe(RUN_STATUS_PAUSED);
    open();
    const statuses = async () => (await show(runId)).steps.map(({ status }) => status);
    await vi.waitFor(async () => expect((await statuses())[0]).toBe(StepStatus.STEP_STATUS_SUCCEEDED), bound);
    expect((await statuses())[1]).toBe(StepStatus.STEP_STATUS_PENDING);
    await unaryCall(mesh.runs, mesh.runs.resumeRun, asked(runId));
    expect(await output(runId)).toContain("paid by ann");
  });

  it("a terminated run ends at once, and refuses everything then", async () => {
    gates.set("Nice", new Promise(() => {}));
    const runId = await start("ann", "Nice");
    const { run } = await unaryCall(mesh.runs, mesh.runs.terminateRun, asked(runId));
    expect(run).toMatchObject({ status: RunStatus.RUN_STATUS_CANCELLED, failure: { reason: "TERMINATED" } });
    await unaryCall(mesh.runs, mesh.runs.terminateRun, asked(runId));
    expect(await refusal(unaryCall(mesh.runs, mesh.runs.pauseRun, asked(runId)))).toBe("RUN_ENDED");
  });

  it("priority and labels change, and the list finds the run by them", async () => {
    const runId = await breakOne("lea");
    const update = UpdateRunRequest.fromPartial({ ...asked(runId), priority: 9, setLabels: { team: `ops-${runId}` } });
    const { run } = await unaryCall(mesh.runs, mesh.runs.updateRun, update);
    expect(run).toMatchObject({ priority: 9, labels: { team: `ops-${runId}` } });
    const filter = { pageSize: 10, pageToken: "", statuses: [], method: "", labels: { team: `ops-${runId}` } };
    const about = ListRunsRequest.fromPartial({ namespace: "default", ...filter });
    const { runs } = await unaryCall(mesh.runs, mesh.runs.listRuns, about);
    expect(runs.map(({ runId: id, priority }) => [id, priority])).toEqual([[runId, 9]]);
    const nothing = UpdateRunRequest.fromPartial(asked(runId));
    expect(await refusal(unaryCall(mesh.runs, mesh.runs.updateRun, nothing))).toBe("ARGUMENT_INVALID");
  });

  it("a fan-out that broke its run begins anew, and only what came of that counts", async () => {
    const go = {
      method: "acme.trips.v1.Trips/Quotes",
      input: { $case: "json" as const, value: '{"places":["Rome","Bonn","Riga"]}' },
    };
    closed.add("Bonn");
    const runId = await mesh.start(go);
    expect(await mesh.result(runId)).toMatchObject({ status: RUN_STATUS_BROKEN, failure: { reason: "NO_ROOM" } });
    closed.delete("Bonn");
    const none = { ...asked(runId), stepIds: ["quotes"], input: { $case: "json" as const, value: "{}" } };
    expect(await refusal(unaryCall(mesh.runs, mesh.runs.retryStep, none))).toBe("INPUT_INVALID");
    await unaryCall(mesh.runs, mesh.runs.retryStep, { ...asked(runId), stepIds: [], input: undefined });
    const text = await output(runId);
    expect(text.match(/\w+-\d/g)).toEqual(["Rome-2", "Bonn-1", "Riga-1"]);
  });

  it("a run below another one breaks in sight of it, and lets it go on when it is mended", async () => {
    declined.add("zoe");
    const runId = await mesh.start({ method: wholeTrip, input: { $case: "json", value: '{"traveller":"zoe"}' } });
    const step = async () => (await show(runId)).steps[0]!;
    await vi.waitFor(async () => expect((await step()).childStatus).toBe(RUN_STATUS_BROKEN), bound);
    expect((await show(runId)).run?.status).toBe(RUN_STATUS_RUNNING);
    declined.delete("zoe");
    const { childRunId } = await step();
    await unaryCall(mesh.runs, mesh.runs.retryStep, { ...asked(childRunId), stepIds: [], input: undefined });
    expect(await output(runId)).toContain("paid by zoe");
  });

  it("a run that ends takes broken ones below it along", async () => {
    declined.add("ida");
    const runId = await mesh.start({ method: wholeTrip, input: { $case: "json", value: '{"traveller":"ida"}' } });
    const step = async () => (await show(runId)).steps[0]!;
    await vi.waitFor(async () => expect((await step()).childStatus).toBe(RUN_STATUS_BROKEN), bound);
    const { childRunId } = await step();
    await unaryCall(mesh.runs, mesh.runs.terminateRun, asked(runId));
    const child = async () => (await show(childRunId)).run?.status;
    await vi.waitFor(async () => expect(await child()).toBe(RunStatus.RUN_STATUS_CANCELLED), bound);
  });
});
