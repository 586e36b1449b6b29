/** docs/guides/operating-runs.md and restarting-runs.md: every command and route of the pages, as it stands there, and what they promise of it. */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineAction, fail } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { EventKind } from "@taskmesh/proto";
import { afterAll, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { type Said, taskmeshAt } from "../fixtures/command-line.js";
import { codeOf, GuideConsole, shellWords, tableOf } from "../fixtures/guide-console.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { type Answer, ask, startTestGateway } from "../fixtures/rest-gateway.js";
import { guideBlock, guideChain, TripActionsService, tripDescriptors } from "../fixtures/trip-actions.js";

const [operating, restarting] = ["operating-runs.md", "restarting-runs.md"];
const pay = "acme.trips.v1.Trips/Pay";
const within = { timeout: 40_000, interval: 30 };
let mesh: InProcessMesh;
let gateway: Gateway;
/** Why payments fail, by traveller. */
const failing = new Map<string, string>();
/** Places whose hotel answers never, but to a request to stop. */
const silent = new Set<string>();

beforeAll(async () => {
  vi.stubEnv("USER", "ops");
  mesh = await startInProcessMesh({ on: "embedded" });
  gateway = await startTestGateway([mesh.address.port]);
  const actions = [
    defineAction(TripActionsService.bookHotel, async ({ place }, { signal }) => {
      if (silent.has(place)) await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return { code: "H123" };
    }),
    defineAction(TripActionsService.charge, ({ traveller, cents }) => {
      const reason = failing.get(traveller);
      if (reason !== undefined) throw fail.final(reason, "the card is declined");
      return { id: `paid by ${traveller}`, cents };
    }),
  ];
  await mesh.serve(actions, { descriptors: tripDescriptors, carrier: mesh.coordinator.carrier });
  await mesh.putChain(guideChain("failure.md", pay));
}, 60_000);
afterAll(async () => {
  vi.unstubAllEnvs();
  await gateway?.stop();
  await mesh?.stop();
}, 30_000);
beforeEach(() => failing.clear());

const start = (traveller: string, place = "Rome", labels = {}, starter = ""): Promise<string> =>
  mesh.start({ method: pay, labels, starter, input: { $case: "json", value: JSON.stringify({ traveller, place }) } });
const show = async (runId: string) => (await ask(gateway, `/api/v1/runs/${runId}`)).json;
const becomes = (runId: string, status: string) =>
  vi.waitFor(async () => expect((await show(runId)).run.status).toBe(`RUN_STATUS_${status}`), within);
const broken = async (traveller: string, why = "CARD_DECLINED", labels = {}): Promise<string> => {
  failing.set(traveller, why);
  const runId = await start(traveller, "Rome", labels);
  await becomes(runId, "BROKEN");
  failing.delete(traveller);
  return runId;
};
const held = async (traveller: string): Promise<string> => {
  silent.add(traveller);
  return start(traveller, traveller);
};
const paused = async (traveller: string): Promise<string> => {
  const runId = await held(traveller);
  expect((await taskmeshAt(gateway, ["runs", "pause", runId])).code).toBe(0);
  return runId;
};

/** What each row of the table is done to, with which JSON, and what becomes of the run. */
const rows: Record<
  string,
  { of: (traveller: string) => Promise<string>; json?: string; becomes: string; event: EventKind }
> = {
  pause: { of: held, becomes: "PAUSED", event: EventKind.EVENT_KIND_RUN_PAUSED },
  resume: { of: paused, becomes: "RUNNING", event: EventKind.EVENT_KIND_RUN_RESUMED },
  cancel: { of: broken, becomes: "CANCELLED", event: EventKind.EVENT_KIND_CANCEL_REQUESTED },
  terminate: { of: held, becomes: "CANCELLED", event: EventKind.EVENT_KIND_RUN_TERMINATED },
  update: { of: held, becomes: "RUNNING", event: EventKind.EVENT_KIND_RUN_CHANGED },
  retry: { of: broken, becomes: "SUCCEEDED", event: EventKind.EVENT_KIND_STEP_RETRIED },
  "retry with input": {
    of: broken,
    json: '{"traveller":"uncle","cents":5}',
    becomes: "SUCCEEDED",
    event: EventKind.EVENT_KIND_STEP_RETRIED,
  },
  skip: {
    of: broken,
    json: '{"id":"cash","cents":5}',
    becomes: "SUCCEEDED",
    event: EventKind.EVENT_KIND_STEP_OVERRIDDEN,
  },
};
const table = tableOf(operating, "operation");
const commandsOf = (cell: string, json = ""): string[] =>
  codeOf(cell).flatMap((code) => {
    const command = code.replace("{…}", json).replace(" STEP", " charge");
    return command.includes("[STEP]")
      ? [command.replace(" [STEP]", ""), command.replace("[STEP]", "charge")]
      : [command];
  });
const routesOf = (cell: string): string[] =>
  codeOf(cell).flatMap((code) => (code.startsWith("POST ") ? [code.slice(5).replace("STEP", "charge")] : []));
const about = { reason: "the bank called", actor: "ann" };
const byCommand = (command: string, runId: string): Promise<Said> => {
  const [, ...args] = shellWords(command.replace(" ID", ` ${runId}`));
  return taskmeshAt(gateway, [...args, "--reason", about.reason, "--actor", about.actor]);
};
const byRoute = (route: string, name: string, runId: string): Promise<Answer> => {
  const { json } = rows[name]!;
  const more = name === "update" ? { priority: 5, setLabels: { team: "ops" } } : {};
  const given = json === undefined ? {} : { [name === "skip" ? "output" : "input"]: JSON.parse(json) };
  return ask(gateway, route.replace("ID", runId), { body: { ...about, ...more, ...given } });
};
/** The operation's event in the history says who and why. */
async function noted(runId: string, kind: EventKind): Promise<void> {
  if ((await show(runId)).run.endedAt === undefined) await taskmeshAt(gateway, ["runs", "terminate", runId]);
  const event = (await mesh.history(runId)).find((one) => one.kind === kind);
  expect({ note: event?.note, actor: event?.actor }).toEqual({
    note: about.reason,
    actor: about.actor,
  });
}

it.each(table)("%s: %s, %s", async (name, cli, rest) => {
  const { of, json, becomes: after, event } = rows[name!]!;
  const commands = commandsOf(cli!, json);
  const routes = routesOf(rest!);
  expect([commands.length > 0, routes.length > 0]).toEqual([true, true]);
  for (const [at, how] of [...commands, ...routes].entries()) {
    const runId = await of(`${name}-${at}`);
    if (how.startsWith("/")) expect((await byRoute(how, name!, runId)).status).toBe(200);
    else expect(await byCommand(how, runId)).toMatchObject({ code: 0, err: "" });
    await becomes(runId, after);
    if (name === "update") expect((await show(runId)).run).toMatchObject({ priority: 5, labels: { team: "ops" } });
    if (json) expect((await show(runId)).output.id).toBe(name === "skip" ? "cash" : "paid by uncle");
    if (after === "CANCELLED")
      expect((await show(runId)).run.failure.reason).toBe(name === "cancel" ? "CANCELLED" : "TERMINATED");
    if (!/retry|skip/.test(name!)) {
      const again = how.startsWith("/") ? await byRoute(how, name!, runId) : await byCommand(how, runId);
      expect("status" in again ? again.status : again.code, "the same again").toBe("status" in again ? 200 : 0);
    }
    await noted(runId, event);
  }
  const ended = await start("ann");
  await becomes(ended, "SUCCEEDED");
  for (const route of routes) expect((await byRoute(route, name!, ended)).json.reason).toBe("RUN_ENDED");
});

it("the history that people see names reason and actor", async () => {
  const runId = await broken("lea");
  await byCommand("taskmesh runs retry ID", runId);
  await becomes(runId, "SUCCEEDED");
  expect((await taskmeshAt(gateway, ["runs", "watch", runId])).out).toMatch(
    /step retried {2}charge .*the bank called {2}by ann/,
  );
});

it("operating-runs.md: its commands, one after another", async () => {
  const commands = new GuideConsole(gateway, operating);
  const declined = await Promise.all(Array.from({ length: 12 }, (_, at) => broken(`declined-${at}`)));
  const closed = await Promise.all([1, 2, 3].map((at) => broken(`closed-${at}`, "BANK_CLOSED")));
  await commands.run("taskmesh runs broken");
  const operation = await commands.run("taskmesh bulk start retry");
  for (const runId of declined) await becomes(runId, "SUCCEEDED");
  await vi.waitFor(
    async () => expect((await taskmeshAt(gateway, ["bulk", "show", operation])).out).toMatch(/done/),
    within,
  );
  await commands.run("taskmesh bulk show");
  commands.ids.set("5b0c…", randomUUID());
  await commands.run("curl localhost:7480/api/v1/operations --json");
  for (const runId of closed) await becomes(runId, "SUCCEEDED");
  const path = `/api/v1/operations/${commands.ids.get("5b0c…")}`;
  await vi.waitFor(async () => expect((await ask(gateway, path)).json.operation.endedAt).toBeTruthy(), within);
  await commands.run("curl localhost:7480/api/v1/operations/5b0c…");
  failing.set("ann", "CARD_DECLINED");
  await commands.run("taskmesh runs start");
  await commands.run("taskmesh runs list --status broken");
  failing.clear();
  await commands.run("taskmesh runs retry");
  await becomes(commands.ids.get("01a2…")!, "SUCCEEDED");
  expect(commands.left).toEqual([]);
});

/** What each row of the other table is given, and which chain version the new run has. */
it.each(tableOf(restarting, "operation"))("%s: %s, %s, %s", async (name, cli, rest, grpc) => {
  expect(Object.keys(Object.getPrototypeOf(mesh.runs))).toContain(
    codeOf(grpc!)[0]!
      .replace(/^RunService./, "")
      .replace(/^./, (c) => c.toLowerCase()),
  );
  const json = '{"traveller":"ann","place":"Oslo"}';
  const [command] = commandsOf(cli!, json);
  const [route] = routesOf(rest!);
  for (const how of [command!, route!]) {
    const runId = await broken("ann");
    const input = name!.startsWith("clone") ? { input: JSON.parse(json) } : {};
    const next = how.startsWith("/")
      ? (await ask(gateway, how.replace("ID", runId), { body: { ...about, ...input } })).json.runId
      : (await byCommand(how, runId)).out;
    await becomes(next, "SUCCEEDED");
    await becomes(runId, "CANCELLED");
    const { run, steps } = await show(next);
    expect(run.origin).toMatchObject({ runId, stepId: name === "restart from a step" ? "charge" : "" });
    expect(steps[0].attempt > 0, "the hotel is booked again").toBe(name !== "restart from a step");
    for (const [id, kind] of [
      [next, EventKind.EVENT_KIND_RUN_ACCEPTED],
      [runId, EventKind.EVENT_KIND_RUN_REPLACED],
    ] as const)
      await noted(id, kind);
  }
});

it("restarting-runs.md: its commands, one after another", async () => {
  const commands = new GuideConsole(gateway, restarting);
  const id = (name: string): string => commands.ids.get(name)!;
  const over = (operationId: string) =>
    vi.waitFor(async () => {
      const { operation } = (await ask(gateway, `/api/v1/operations/${operationId}`)).json;
      expect(operation.endedAt).toBeTruthy();
      return operation;
    }, within);
  failing.set("ann", "CARD_DECLINED");
  await commands.run("taskmesh runs start");
  failing.clear();
  await commands.run("taskmesh runs restart");
  await becomes(id("01a3…"), "SUCCEEDED");
  await commands.run("taskmesh runs show");
  expect((await show(id("01a2…"))).run).toMatchObject({ replacedBy: id("01a3…"), status: "RUN_STATUS_CANCELLED" });

  commands.ids.set("01b2…", await broken("ann"));
  const folder = mkdtempSync(join(tmpdir(), "taskmesh-guide-"));
  writeFileSync(join(folder, "pay.yaml"), guideBlock("failure.md", "yaml", pay).replace("* 100", "* 50"));
  commands.texts.set("pay.yaml", join(folder, "pay.yaml"));
  await commands.run("taskmesh chains apply");
  rmSync(folder, { recursive: true });
  await commands.run("taskmesh runs restart");
  await becomes(id("01b3…"), "SUCCEEDED");
  expect(await show(id("01b3…"))).toMatchObject({ output: { cents: 200 }, run: { chainVersion: 2 } });

  commands.ids.set("01c2…", await held("ann"));
  await commands.run("taskmesh runs clone");
  await becomes(id("01c3…"), "SUCCEEDED");
  expect((await show(id("01c3…"))).input.place).toBe("Oslo");

  silent.add("Rome");
  await commands.run("taskmesh runs start");
  await commands.run("taskmesh runs start");
  await commands.run("taskmesh runs list --id");
  const taken = await taskmeshAt(gateway, ["runs", "start", pay, "--id", "order-17"]);
  expect([taken.code, taken.err]).toEqual([5, expect.stringContaining(id("01d2…"))]);
  await taskmeshAt(gateway, ["runs", "terminate", id("01d2…")]);
  silent.clear();

  const group = async (): Promise<string[]> => {
    const runIds = await Promise.all([1, 2, 3].map(() => start("ann", "Rome", {}, "ann")));
    for (const runId of runIds) await becomes(runId, "BROKEN");
    return runIds;
  };
  failing.set("ann", "CARD_DECLINED");
  const skipped = await group();
  expect(await commands.run("taskmesh runs list --starter")).toContain(skipped[2]);
  await commands.run("taskmesh runs broken --by-starter");
  await commands.run("taskmesh bulk start skip");
  expect(await over(id("01e2…"))).toMatchObject({ changed: 3, failed: 0 });
  for (const runId of skipped) expect((await show(runId)).output.id).toBe("paid in cash");
  const retried = await group();
  await commands.run("taskmesh bulk start retry");
  expect(await over(id("01e3…"))).toMatchObject({ changed: 3, failed: 0 });
  for (const runId of retried) {
    await becomes(runId, "SUCCEEDED");
    expect((await show(runId)).output.id).toBe("paid by the company");
  }
  const restarted = await group();
  failing.clear();
  await commands.run("taskmesh bulk start restart");
  expect(await over(id("01e4…"))).toMatchObject({ changed: 3, failed: 0 });
  for (const runId of restarted) await becomes((await show(runId)).run.replacedBy, "SUCCEEDED");
  await commands.run("taskmesh bulk start restart --status cancelled");
  const { changed, failed } = await over(id("01e5…"));
  expect([changed >= 3, failed]).toEqual([true, 0]);
  expect(commands.left).toEqual([]);
});
