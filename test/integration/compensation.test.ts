/** Runs that undo what they have done, over real servers and embedded, as the guide shows it. */
import { defineAction, fail } from "@taskmesh/action-sdk";
import { EventKind, type GetRunResponse, RetryPolicy, RunStatus, StepStatus } from "@taskmesh/proto";
import { parseChainDocument, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { guideChain, TripActionsService, tripDescriptors } from "../fixtures/trip-actions.js";

const method = "acme.trips.v1.Trips/Book";
/** The same, but that a payment is tried again much later. */
const patient = "acme.trips.v1.Trips/BookPatiently";
const rooms = "acme.trips.v1.Trips/BookRooms";
/** A chain that undoes, and one that is undone by it. */
const refund = `
contract: { name: acme.trips.v1.Undo/Hotel, input: { code: string }, output: { code: string } }
steps:
  - { id: cancel, call: acme.trips.v1.TripActions/CancelHotel, input: { code: input.code, why: "'by a chain'" } }
output: { code: steps.cancel.output.code }
`;
const byChain = `
contract: { name: acme.trips.v1.Trips/BookOne, input: { traveller: string, place: string }, output: { code: string } }
steps:
  - id: hotel
    call: acme.trips.v1.TripActions/BookHotel
    input: { place: input.place }
    compensate: { call: acme.trips.v1.Undo/Hotel, input: { code: steps.hotel.output.code } }
  - { id: charge, needs: [hotel], call: acme.trips.v1.TripActions/Charge, input: { traveller: input.traveller, cents: 1 } }
output: { code: steps.hotel.output.code }
`;
const within = { timeout: 20_000, interval: 25 };

describe.each(["servers", "embedded"] as const)("a trip that is booked on %s", (on) => {
  let mesh: InProcessMesh;
  /** What was done and undone for a place, in order. */
  const done = new Map<string, string[]>();
  /** Failures that cancelling a hotel still has, by place. */
  const stubborn = new Map<string, number>();

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    const note = (place: string, what: string): void => void done.set(place, [...(done.get(place) ?? []), what]);
    const actions = [
      defineAction(TripActionsService.bookHotel, ({ place }) => {
        note(place, "hotel");
        return { code: place };
      }),
      defineAction(TripActionsService.cancelHotel, ({ code, why }) => {
        const left = stubborn.get(code) ?? 0;
        stubborn.set(code, left - 1);
        if (left > 0) throw fail.retryable("NO_ANSWER", "the hotel does not answer");
        note(code, `no hotel: ${why}`);
        return { code };
      }),
      defineAction(TripActionsService.bookFlight, ({ place }) => {
        if (place === "Atlantis") throw fail.final("UNKNOWN_PLACE", "no plane goes there");
        note(place, "flight");
        return { code: place };
      }),
      defineAction(TripActionsService.cancelFlight, ({ code, why }) => {
        note(code, `no flight: ${why}`);
        return { code };
      }),
      defineAction(TripActionsService.charge, async ({ traveller, cents }, { signal }) => {
        if (traveller === "slow") await new Promise((resolve) => signal.addEventListener("abort", resolve));
        if (traveller === "offline") throw fail.retryable("NO_LINE", "the bank does not answer");
        if (traveller === "poor") throw fail.final("CARD_DECLINED", "the card is declined");
        return { id: `paid by ${traveller}`, cents };
      }),
    ];
    const embedded = on === "embedded" ? { carrier: mesh.coordinator.carrier } : {};
    await mesh.serve(actions, { descriptors: tripDescriptors, ...embedded });
    const chain = guideChain("compensation.md", method);
    await mesh.putChain(chain);
    const [hotel, flight, charge] = chain.steps;
    const retry = RetryPolicy.fromPartial({ backoff: { $case: "fixed", value: { delay: { seconds: 600n } } } });
    const contract = { ...chain.contract!, name: patient };
    await mesh.putChain({ ...chain, contract, steps: [hotel!, flight!, { ...charge!, retry }] });
    await mesh.putChain(guideChain("compensation.md", rooms));
    for (const text of [refund, byChain]) await mesh.putChain(parseChainDocument(text).spec!);
  }, 60_000);
  afterAll(() => mesh.stop());

  const start = (traveller: string, place: string, more = {}): Promise<string> => {
    const value = JSON.stringify({ traveller, place, cents: 1 });
    return mesh.start({ method, input: { $case: "json", value }, ...more });
  };
  const show = (runId: string): Promise<GetRunResponse> =>
    unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: false });
  const charging = (runId: string, status = StepStatus.STEP_STATUS_RUNNING) =>
    vi.waitFor(async () => {
      const { steps } = await show(runId);
      expect(steps[2]?.status).toBe(status);
    }, within);

  it("stays, where everything succeeds", async () => {
    const runId = await start("ann", "Rome");
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(done.get("Rome")).toEqual(["hotel", "flight"]);
    expect((await show(runId)).steps.map(({ stepId }) => stepId)).toEqual(["hotel", "flight", "charge"]);
  });

  it("is undone in reverse order, where it fails, and says why it failed", async () => {
    const runId = await start("poor", "Oslo");
    const { status, failure } = await mesh.result(runId);
    expect([status, failure?.reason]).toEqual([RunStatus.RUN_STATUS_FAILED, "CARD_DECLINED"]);
    expect(done.get("Oslo")).toEqual(["hotel", "flight", "no flight: no CARD_DECLINED", "no hotel: CARD_DECLINED"]);
    const { run, steps } = await show(runId);
    expect(run).toMatchObject({ compensating: false, compensationFailures: [] });
    expect(steps.slice(3).map(({ stepId, undoes, status: s }) => [stepId, undoes, s])).toEqual([
      ["hotel.undo", "hotel", StepStatus.STEP_STATUS_SUCCEEDED],
      ["flight.undo", "flight", StepStatus.STEP_STATUS_SUCCEEDED],
    ]);
    const kinds = (await mesh.history(runId)).map(({ kind }) => kind);
    expect(kinds.filter((kind) => kind === EventKind.EVENT_KIND_RUN_COMPENSATING)).toHaveLength(1);
  });

  it("is undone only as far as it came", async () => {
    await mesh.result(await start("ann", "Atlantis"));
    expect(done.get("Atlantis")).toEqual(["hotel", "no hotel: UNKNOWN_PLACE"]);
  });

  it("is undone where it is cancelled", async () => {
    const runId = await start("offline", "Nice", { method: patient });
    await charging(runId, StepStatus.STEP_STATUS_RETRYING);
    await unaryCall(mesh.runs, mesh.runs.cancelRun, {
      namespace: "default",
      runId,
      reason: "rain",
      actor: "",
    } as never);
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(done.get("Nice")).toEqual(["hotel", "flight", "no flight: no CANCELLED", "no hotel: CANCELLED"]);
  });

  it("is undone where its time is over, though there is none left", async () => {
    const runId = await start("offline", "Bonn", { method: patient, timeout: { seconds: 4n, nanos: 0 } });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_EXPIRED);
    expect(done.get("Bonn")?.slice(2)).toEqual(["no flight: no RUN_EXPIRED", "no hotel: RUN_EXPIRED"]);
  });

  it("is undone by an undo's own retries, and says what could not be undone", async () => {
    stubborn.set("Riga", 2);
    await mesh.result(await start("poor", "Riga"));
    expect(done.get("Riga")?.at(-1)).toBe("no hotel: CARD_DECLINED");
    stubborn.set("Bern", 100);
    const runId = await start("poor", "Bern");
    const { failure } = await mesh.result(runId);
    expect(failure?.reason).toBe("CARD_DECLINED");
    expect(failure?.message).toContain('compensation failed in 1 of 2: "hotel.undo" (NO_ANSWER)');
    expect((await show(runId)).run?.compensationFailures).toMatchObject([
      { stepId: "hotel", failure: { reason: "NO_ANSWER" } },
    ]);
    expect(done.get("Bern")).toContain("no flight: no CARD_DECLINED");
  });

  it("is undone item by item, the newest first, where it is a fan-out; and says how many could not be", async () => {
    const book = (traveller: string, places: string[]): Promise<string> => {
      const value = JSON.stringify({ traveller, places, cents: 1 });
      return mesh.start({ method: rooms, input: { $case: "json", value } });
    };
    const runId = await book("poor", ["Ulm", "Ulm", "Ulm"]);
    expect((await mesh.result(runId)).failure?.reason).toBe("CARD_DECLINED");
    const undone = done.get("Ulm")!.slice(3);
    expect([...undone].sort()).toEqual([0, 1, 2].map((n) => `no hotel: ${n}: CARD_DECLINED`));
    const items = await unaryCall(mesh.runs, mesh.runs.listItems, {
      ...{ namespace: "default", runId, stepId: "rooms.undo" },
      ...{ pageSize: 0, pageToken: "", omitPayloads: true },
    });
    expect(undone).toEqual(items.items.map(({ key }) => `no hotel: ${key}: CARD_DECLINED`));
    stubborn.set("Graz", 100);
    const stuck = await book("poor", ["Linz", "Graz", "Wien"]);
    const { failure } = await mesh.result(stuck);
    expect(failure?.message).toContain('compensation failed in 1 of 1: "rooms.undo" (ITEMS_FAILED)');
    expect(done.get("Linz")).toEqual(["hotel", "no hotel: 0: CARD_DECLINED"]);
    expect(done.get("Wien")).toEqual(["hotel", "no hotel: 2: CARD_DECLINED"]);
  });

  it("is undone by a chain", async () => {
    const value = JSON.stringify({ traveller: "poor", place: "Genf" });
    const runId = await mesh.start({ method: "acme.trips.v1.Trips/BookOne", input: { $case: "json", value } });
    expect((await mesh.result(runId)).failure?.reason).toBe("CARD_DECLINED");
    expect(done.get("Genf")).toEqual(["hotel", "no hotel: by a chain"]);
    const undo = (await show(runId)).steps.find(({ stepId }) => stepId === "hotel.undo");
    expect(undo?.childRunId).not.toBe("");
  });

  it("stays as it is where its run is terminated", async () => {
    const runId = await start("slow", "Lima");
    await charging(runId);
    const about = { namespace: "default", runId, reason: "now", actor: "ann" };
    await unaryCall(mesh.runs, mesh.runs.terminateRun, about);
    expect((await show(runId)).run?.status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    expect(done.get("Lima")).toEqual(["hotel", "flight"]);
  });
});
