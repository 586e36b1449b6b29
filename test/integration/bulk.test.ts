/** Many runs at once, over REST and the command line, on real servers and embedded. */
import { randomUUID } from "node:crypto";
import { defineAction, fail } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { RunStatus } from "@taskmesh/proto";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { taskmeshAt } from "../fixtures/command-line.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";
import { guideChain, TripActionsService, tripDescriptors } from "../fixtures/trip-actions.js";

const pay = "acme.trips.v1.Trips/Pay";
const within = { timeout: 30_000, interval: 50 };

describe.each(["servers", "embedded"] as const)("on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  /** Why payments fail now, by traveller. */
  const failing = new Map<string, string>();

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    gateway = await startTestGateway([mesh.address.port]);
    const actions = [
      defineAction(TripActionsService.bookHotel, () => ({ code: "H1" })),
      defineAction(TripActionsService.charge, ({ traveller, cents }) => {
        const reason = failing.get(traveller);
        if (reason !== undefined) throw fail.final(reason, "not now");
        return { id: traveller, cents };
      }),
    ];
    const embedded = on === "embedded" ? { carrier: mesh.coordinator.carrier } : {};
    await mesh.serve(actions, { descriptors: tripDescriptors, ...embedded });
    await mesh.putChain(guideChain("failure.md", pay));
    failing.set("ann", "CARD_DECLINED");
    failing.set("bob", "BANK_CLOSED");
  }, 60_000);
  afterAll(async () => {
    await gateway.stop();
    await mesh.stop();
  }, 30_000);

  const start = (traveller: string, team: string): Promise<string> => {
    const value = JSON.stringify({ traveller, place: "Rome" });
    return mesh.start({ method: pay, labels: { team }, input: { $case: "json", value } });
  };
  const many = (count: number, traveller: string, team: string): Promise<string[]> =>
    Promise.all(Array.from({ length: count }, () => start(traveller, team)));
  const broken = async (runIds: readonly string[]): Promise<void> => {
    for (const id of runIds) expect((await mesh.result(id)).status).toBe(RunStatus.RUN_STATUS_BROKEN);
  };
  const begin = (body: object) => ask(gateway, "/api/v1/operations", { body });
  const ended = (operationId: string) =>
    vi.waitFor(async () => {
      const { json } = await ask(gateway, `/api/v1/operations/${operationId}`);
      expect(json.operation.endedAt).toBeTruthy();
      return json.operation;
    }, within);

  it("broken runs are counted by what broke them, and a group is retried as a whole", async () => {
    const ann = await many(12, "ann", "one");
    const bob = await many(3, "bob", "one");
    await broken([...ann, ...bob]);
    const groups = async () => (await ask(gateway, "/api/v1/broken")).json.groups;
    const action = "acme.trips.v1.TripActions/Charge";
    expect(await groups()).toMatchObject([
      { reason: "CARD_DECLINED", action, method: pay, count: "12" },
      { reason: "BANK_CLOSED", action, method: pay, count: "3" },
    ]);
    failing.delete("ann");
    const operationId = randomUUID();
    const retry = { operationId, kind: "BULK_KIND_RETRY", filter: { brokenReason: "CARD_DECLINED" }, reason: "mended" };
    const begun = await begin(retry);
    expect([begun.status, begun.json.operation.operationId]).toEqual([202, operationId]);
    expect((await begin(retry)).json.operation.operationId, "the same again").toBe(operationId);
    expect(await ended(operationId)).toMatchObject({ changed: 12, unchanged: 0, failed: 0 });
    for (const id of ann) expect((await mesh.result(id)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    await broken(bob);
    expect(await groups()).toMatchObject([{ reason: "BANK_CLOSED", count: "3" }]);
  });

  it("runs are chosen by label, paused or changed or cancelled, and those of others are left alone", async () => {
    const mine = await many(4, "bob", "mine");
    const others = await many(2, "bob", "others");
    await broken([...mine, ...others]);
    const update = { kind: "BULK_KIND_UPDATE", filter: { labels: { team: "mine" } }, setLabels: { seen: "yes" } };
    const { operationId } = (await begin(update)).json.operation;
    expect(await ended(operationId)).toMatchObject({ changed: 4 });
    const cancel = { kind: "BULK_KIND_CANCEL", filter: { labels: { seen: "yes" } } };
    expect(await ended((await begin(cancel)).json.operation.operationId)).toMatchObject({ changed: 4, failed: 0 });
    for (const id of mine) expect((await mesh.result(id)).status).toBe(RunStatus.RUN_STATUS_CANCELLED);
    await broken(others);
    const again = (await begin({ ...cancel, filter: { labels: { seen: "yes" } } })).json.operation.operationId;
    expect(await ended(again), "what has ended is none of them").toMatchObject({ changed: 0, unchanged: 0 });
  });

  it.each([
    [{ kind: "BULK_KIND_PAUSE" }, "filter"],
    [{ kind: "BULK_KIND_PAUSE", filter: {} }, "filter"],
    [{ filter: { method: pay } }, "kind"],
    [{ kind: "BULK_KIND_UPDATE", filter: { method: pay } }, "priority"],
    [{ kind: "BULK_KIND_PAUSE", filter: { method: pay }, operationId: "x" }, "operation_id"],
  ])("%j is refused by name", async (body, field) => {
    const { status, json } = await begin(body);
    expect([status, json.reason]).toEqual([400, "ARGUMENT_INVALID"]);
    expect(JSON.stringify(json)).toContain(field);
  });

  it("an operation that nobody began is not found", async () => {
    const { status, json } = await ask(gateway, `/api/v1/operations/${randomUUID()}`);
    expect([status, json.reason]).toEqual([404, "BULK_OPERATION_NOT_FOUND"]);
  });

  if (on !== "embedded") return;

  it("all of it by the command line", { timeout: 60_000 }, async () => {
    const said = async (...args: string[]): Promise<string> => (await taskmeshAt(gateway, args)).out;
    const runIds = await many(2, "bob", "desk");
    await broken(runIds);
    expect(await said("runs", "broken")).toContain("BANK_CLOSED");
    failing.delete("bob");
    const choice = ["--broken-reason", "BANK_CLOSED", "-l", "team=desk"];
    const operationId = await said("bulk", "start", "retry", ...choice, "--reason", "it is open");
    expect(await ended(operationId)).toMatchObject({ changed: 2 });
    expect(await said("bulk", "show", operationId)).toBe("retry: done; 2 changed, 0 unchanged, 0 failed");
    for (const id of runIds) expect((await mesh.result(id)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
  });
});
