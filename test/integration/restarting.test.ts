/** Runs made from other runs, ids of callers' choice, starters and whole groups: over REST, gRPC and the command line, on real servers and embedded. */
import { defineAction, fail } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { RunStatus } from "@taskmesh/proto";
import { parseChainDocument } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { taskmeshAt } from "../fixtures/command-line.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";
import { guideChain, TripActionsService, tripDescriptors } from "../fixtures/trip-actions.js";

const pay = "acme.trips.v1.Trips/Pay";
const tour = "acme.trips.v1.Trips/Tour";
const within = { timeout: 40_000, interval: 50 };
const { RUN_STATUS_BROKEN, RUN_STATUS_CANCELLED, RUN_STATUS_SUCCEEDED } = RunStatus;

/** A fan-out, and a step that reads what came of it. */
const tourChain = (note: string) => `contract:
  name: ${tour}
  input: { places: repeated string }
  output: { ids: repeated string, hotel: string }
on_unhandled: BREAK
steps:
  - id: quotes
    each: { items: input.places }
    call: acme.trips.v1.TripActions/Quote
    input: { place: each.value }
  - id: hotel
    call: acme.trips.v1.TripActions/BookHotel
    input: { place: "'${note}' + steps.quotes.output[0].id" }
output:
  ids: "steps.quotes.output.map(quote, quote.id)"
  hotel: steps.hotel.output.code
`;

describe.each(["servers", "embedded"] as const)("on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  /** Travellers whose card is declined, and places without a hotel. */
  const declined = new Set<string>();
  const full = new Set<string>();
  /** How often each place was quoted and booked. */
  const quoted = new Map<string, number>();
  const booked = new Map<string, number>();
  const count = (of: Map<string, number>, key: string): number => {
    of.set(key, (of.get(key) ?? 0) + 1);
    return of.get(key)!;
  };

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    gateway = await startTestGateway([mesh.address.port]);
    await holdToDocument(gateway);
    const actions = [
      defineAction(TripActionsService.bookHotel, ({ place }) => {
        if (full.has(place)) throw fail.final("NO_ROOM", "it is full");
        return { code: `${place}-${count(booked, place)}` };
      }),
      defineAction(TripActionsService.quote, ({ place }) => ({ id: `${place}-${count(quoted, place)}`, cents: 1 })),
      defineAction(TripActionsService.charge, ({ traveller, cents }) => {
        if (declined.has(traveller)) throw fail.final("CARD_DECLINED", "the card is declined");
        return { id: `paid by ${traveller}`, cents };
      }),
    ];
    const embedded = on === "embedded" ? { carrier: mesh.coordinator.carrier } : {};
    await mesh.serve(actions, { descriptors: tripDescriptors, ...embedded });
    await mesh.putChain(guideChain("failure.md", pay));
    await mesh.putChain(parseChainDocument(tourChain("")).spec!);
  }, 180_000);
  afterAll(async () => {
    vi.unstubAllEnvs();
    await gateway?.stop();
    await mesh?.stop();
  }, 30_000);

  const start = (traveller: string, place: string, more = {}): Promise<string> =>
    mesh.start({ method: pay, input: { $case: "json", value: JSON.stringify({ traveller, place }) }, ...more });
  const broken = async (traveller: string, place: string, more = {}): Promise<string> => {
    declined.add(traveller);
    const runId = await start(traveller, place, more);
    expect((await mesh.result(runId)).status).toBe(RUN_STATUS_BROKEN);
    declined.delete(traveller);
    return runId;
  };
  const post = (path: string, body: object = {}) => ask(gateway, `/api/v1/${path}`, { body });
  const show = async (runId: string) => (await ask(gateway, `/api/v1/runs/${runId}`)).json;
  const output = async (runId: string) => {
    expect((await mesh.result(runId)).status).toBe(RUN_STATUS_SUCCEEDED);
    return (await show(runId)).output;
  };
  const status = async (runId: string) => (await mesh.result(runId)).status;

  it("a broken run is restarted from its step: the rest is kept, and both name each other", async () => {
    const runId = await broken("ann", "Rome", { starter: "shop" });
    const asked = { reason: "the bank called", actor: "bob" };
    const made = await post(`runs/${runId}/steps/charge/restart`, asked);
    expect([made.status, made.json.existing]).toEqual([201, false]);
    const next = made.json.runId;
    expect(await output(next)).toMatchObject({ id: "paid by ann", hotel: "Rome-1" });
    expect(booked.get("Rome")).toBe(1);
    const { run, steps } = await show(next);
    expect(run).toMatchObject({
      starter: "shop",
      origin: { runId, kind: "RUN_ORIGIN_KIND_RESTART", stepId: "charge" },
    });
    expect(steps).toMatchObject([
      { stepId: "hotel", status: "STEP_STATUS_SUCCEEDED", output: { code: "Rome-1" } },
      { stepId: "charge", attempt: 1 },
    ]);
    const old = (await show(runId)).run;
    expect(old).toMatchObject({ status: "RUN_STATUS_CANCELLED", replacedBy: next, successorRunIds: [next] });
    expect(old.failure).toMatchObject({ reason: "TERMINATED", message: expect.stringContaining(next) });
    expect((await post(`runs/${runId}/steps/charge/restart`, asked)).json).toEqual({ runId: next, existing: true });
    const history = await mesh.history(next);
    expect(history.find(({ otherRunId }) => otherRunId !== "")).toMatchObject({ stepId: "hotel", otherRunId: runId });
    expect(history[0]).toMatchObject({ note: "the bank called", actor: "bob" });
    // A run that has ended stays as it is, and can be restarted from anywhere.
    const again = (await post(`runs/${next}/steps/hotel/restart`)).json.runId;
    expect(await output(again)).toMatchObject({ hotel: "Rome-2" });
    expect((await show(next)).run).toMatchObject({ status: "RUN_STATUS_SUCCEEDED", successorRunIds: [again] });
  });

  it("a fan-out's results go over, with a corrected version of the chain, and one that does not fit is refused", async () => {
    for (const place of ["Oslo-1", "in Oslo-1"]) full.add(place);
    const value = '{"places":["Oslo","Bonn","Riga"]}';
    const runId = await mesh.start({ method: tour, input: { $case: "json", value } });
    expect(await status(runId)).toBe(RUN_STATUS_BROKEN);
    await mesh.putChain(parseChainDocument(tourChain("in ")).spec!);
    full.delete("in Oslo-1");
    const made = await post(`runs/${runId}/steps/hotel/restart`, { version: "RUN_VERSION_NEWEST" });
    expect(await output(made.json.runId)).toEqual({ ids: ["Oslo-1", "Bonn-1", "Riga-1"], hotel: "in Oslo-1-1" });
    const items = (await ask(gateway, `/api/v1/runs/${made.json.runId}/steps/quotes/items`)).json.items;
    expect(items.map((item: { output: { id: string } }) => item.output.id)).toEqual(["Oslo-1", "Bonn-1", "Riga-1"]);
    expect([...quoted.values()]).toEqual([1, 1, 1]);
    const history = await mesh.history(made.json.runId);
    expect(history.map(({ seq }) => Number(seq))).toEqual(history.map((_, at) => at + 1));
    // The results can go on from run to run.
    const third = (await post(`runs/${made.json.runId}/steps/hotel/restart`)).json.runId;
    expect((await output(third)).ids).toEqual(["Oslo-1", "Bonn-1", "Riga-1"]);
    const other = tourChain("")
      .replace("TripActions/Quote", "TripActions/Charge")
      .replace("place: each", "traveller: each");
    await mesh.putChain(parseChainDocument(other).spec!);
    const refused = await post(`runs/${third}/steps/hotel/restart`, { version: "RUN_VERSION_NEWEST" });
    expect([refused.status, refused.json.reason]).toEqual([409, "RESTART_UNFIT"]);
    expect(JSON.stringify(refused.json.details)).toContain('"stepId":"quotes"');
    expect((await post(`runs/${third}/steps/nothing/restart`)).json.reason).toBe("STEP_NOT_FOUND");
  });

  it("a run is cloned with another input and cancelled, once", async () => {
    const runId = await broken("eve", "Nice");
    const input = { traveller: "eve", place: "Lyon" };
    expect((await post(`runs/${runId}/clone`, { input: { traveler: "x" } })).json.reason).toBe("INPUT_INVALID");
    const made = await post(`runs/${runId}/clone`, { input, reason: "Lyon" });
    expect(made.status).toBe(201);
    expect(await output(made.json.runId)).toMatchObject({ hotel: "Lyon-1" });
    expect(await status(runId)).toBe(RUN_STATUS_CANCELLED);
    expect((await post(`runs/${runId}/clone`, { input, reason: "Lyon" })).json.runId).toBe(made.json.runId);
    expect((await post(`runs/${runId}/clone`, { input: { ...input, place: "Metz" } })).json.reason).toBe("RUN_ENDED");
  });

  it("an id of the caller's choice is one run's at a time", async () => {
    const runId = await broken("kim", "Bern", { customId: "order-17" });
    const ask17 = (more: object) =>
      post("runs", { method: pay, customId: "order-17", input: { traveller: "kim", place: "Bern" }, ...more });
    const refused = await ask17({});
    expect([refused.status, refused.json.reason]).toEqual([409, "CUSTOM_ID_TAKEN"]);
    expect(JSON.stringify(refused.json.details)).toContain(runId);
    expect((await ask17({ idConflict: "ID_CONFLICT_POLICY_USE_EXISTING" })).json).toEqual({ runId, existing: true });
    const taken = (await ask17({ idConflict: "ID_CONFLICT_POLICY_TERMINATE_EXISTING" })).json.runId;
    expect(await status(runId)).toBe(RUN_STATUS_CANCELLED);
    expect(await status(taken)).toBe(RUN_STATUS_SUCCEEDED);
    expect((await ask17({ idReuse: "ID_REUSE_POLICY_ALLOW_IF_FAILED" })).json.reason).toBe("CUSTOM_ID_USED");
    const listed = (await ask(gateway, "/api/v1/runs?customId=order-17")).json.runs;
    expect(listed.map((run: { runId: string }) => run.runId)).toEqual([taken]);
    expect((await show(taken)).run).toMatchObject({
      customId: "order-17",
      origin: { kind: "RUN_ORIGIN_KIND_CUSTOM_ID" },
    });
    expect((await post("runs", { method: pay, idReuse: "ID_REUSE_POLICY_REJECT" })).json.reason).toBe(
      "ARGUMENT_INVALID",
    );
  });

  it("groups are by starter, and mended as a whole: skipped with a value, retried with an input, restarted", async () => {
    const some = async (starter: string) => {
      const runIds = await Promise.all([1, 2, 3].map(() => start("zoe", "Graz", { starter })));
      for (const runId of runIds) expect(await status(runId)).toBe(RUN_STATUS_BROKEN);
      return runIds;
    };
    declined.add("zoe");
    const groups: Record<string, string[]> = {};
    for (const starter of ["desk", "app", "batch"]) groups[starter] = await some(starter);
    const { json } = await ask(gateway, "/api/v1/broken?byStarter=true");
    const counted = json.groups.map(({ starter, count: n }: { starter: string; count: string }) => `${starter} ${n}`);
    expect(counted.sort()).toEqual(["app 3", "batch 3", "desk 3"]);
    const done = async (body: object) => {
      const begun = await post("operations", body);
      expect(begun.status).toBe(202);
      const path = `/api/v1/operations/${begun.json.operation.operationId}`;
      return vi.waitFor(async () => {
        const { operation } = (await ask(gateway, path)).json;
        expect(operation.endedAt).toBeTruthy();
        return operation;
      }, within);
    };
    const of = (starter: string) => ({ brokenReason: "CARD_DECLINED", starter });
    const wrong = await post("operations", { kind: "BULK_KIND_SKIP", filter: of("desk"), value: { cents: "many" } });
    expect([wrong.status, wrong.json.reason]).toEqual([400, "OUTPUT_INVALID"]);
    const cash = { kind: "BULK_KIND_SKIP", filter: of("desk"), value: { id: "cash", cents: 4 } };
    expect(await done(cash)).toMatchObject({ changed: 3, failed: 0 });
    for (const runId of groups["desk"]!) expect((await output(runId)).id).toBe("cash");
    const value = { traveller: "the company", cents: 4 };
    const retry = { kind: "BULK_KIND_RETRY", filter: of("app"), stepId: "charge", value };
    expect(await done(retry)).toMatchObject({ changed: 3, failed: 0, stepId: "charge" });
    for (const runId of groups["app"]!) expect((await output(runId)).id).toBe("paid by the company");
    declined.delete("zoe");
    const restart = { kind: "BULK_KIND_RESTART", filter: of("batch"), stepId: "charge", reason: "it is open" };
    expect(await done(restart)).toMatchObject({ changed: 3, failed: 0 });
    for (const runId of groups["batch"]!) {
      const { replacedBy } = (await show(runId)).run;
      expect((await output(replacedBy)).id).toBe("paid by zoe");
    }
    const anew = { kind: "BULK_KIND_RESTART", filter: { statuses: ["RUN_STATUS_SUCCEEDED"], starter: "desk" } };
    expect(await done(anew)).toMatchObject({ changed: 3, failed: 0 });
    expect((await ask(gateway, "/api/v1/runs?starter=desk")).json.runs).toHaveLength(6);
    expect((await post("operations", { ...anew, filter: { statuses: ["RUN_STATUS_RUNNING"] } })).json.reason).toBe(
      "ARGUMENT_INVALID",
    );
  });

  if (on !== "embedded") return;

  it("all of it by the command line, as the guide shows it", { timeout: 120_000 }, async () => {
    vi.stubEnv("USER", "ops");
    const said = async (...args: string[]): Promise<string> => (await taskmeshAt(gateway, args)).out;
    const runId = await broken("lea", "Ulm");
    const next = await said("runs", "restart", runId, "charge", "--reason", "the bank has lifted the limit");
    expect(await output(next)).toMatchObject({ id: "paid by lea" });
    expect(await said("runs", "show", next)).toContain(`${runId} (restart from charge)`);
    declined.add("lea");
    const input = '{"traveller":"lea","place":"Ulm"}';
    const named = await said("runs", "start", pay, "--id", "order-18", "--input", input);
    expect(await status(named)).toBe(RUN_STATUS_BROKEN);
    const used = await said("runs", "start", pay, "--id", "order-18", "--id-conflict", "use-existing", "-i", input);
    expect(used).toBe(named);
    expect(await said("runs", "broken", "--by-starter")).toMatch(/CARD_DECLINED .* ops /);
    declined.delete("lea");
    const clone = await said("runs", "clone", named, "--input", '{"traveller":"lea","place":"Oslo"}', "--terminate");
    expect(await output(clone)).toMatchObject({ hotel: "Oslo-1" });
    expect(await said("runs", "list", "--id", "order-18")).toContain(clone);
    declined.add("tom");
    const last = await start("tom", "Ulm", { starter: "tom" });
    expect(await status(last)).toBe(RUN_STATUS_BROKEN);
    const value = '{"id":"paid in cash","cents":400}';
    await said("bulk", "start", "skip", "--broken-reason", "CARD_DECLINED", "--starter", "tom", "--value", value);
    await vi.waitFor(async () => expect((await show(last)).output?.id).toBe("paid in cash"), within);
  });
});
