/** docs/guides/waiting.md and people.md: their chains and every command, as they stand there; and what a person types who gets it wrong. */
import { builtinActions, builtinConfig, builtinDescriptors } from "@taskmesh/actions";
import type { Gateway } from "@taskmesh/gateway";
import { parseChainDocument } from "@taskmesh/runtime";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type Said, taskmeshAt } from "../fixtures/command-line.js";
import { chainOfGuide } from "../fixtures/guide.js";
import { GuideConsole } from "../fixtures/guide-console.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { type OutsideService, startOutsideService } from "../fixtures/outside-service.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

const within = { timeout: 40_000, interval: 30 };
let mesh: InProcessMesh;
let gateway: Gateway;
let service: OutsideService;

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  gateway = await startTestGateway([mesh.address.port]);
  const actions = builtinActions(builtinConfig({ TASKMESH_HTTP_ALLOW: "127.0.0.1" }));
  await mesh.serve(actions, { descriptors: builtinDescriptors, carrier: mesh.coordinator.carrier });
  service = await startOutsideService();
  for (const rpc of ["Remind", "Deliver", "Shop", "Translate"]) await mesh.putChain(chainOfGuide("waiting.md", rpc));
  for (const rpc of ["Approve", "Handle"]) await mesh.putChain(chainOfGuide("people.md", rpc));
}, 60_000);
afterAll(async () => {
  service?.close();
  await gateway?.stop();
  await mesh?.stop();
}, 30_000);

const taskmesh = (...args: string[]): Promise<Said> => taskmeshAt(gateway, args);
const start = async (method: string, input: object, ...more: string[]): Promise<string> => {
  const { code, out, err } = await taskmesh("runs", "start", method, "--input", JSON.stringify(input), ...more);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return out;
};
const show = async (runId: string) => (await ask(gateway, `/api/v1/runs/${runId}`)).json;
const becomes = (runId: string, status: string) =>
  vi.waitFor(async () => expect((await show(runId)).run.status).toBe(`RUN_STATUS_${status}`), within);

/** A run whose text the service outside has been asked to translate. */
async function handOver(text: string): Promise<string> {
  const input = { text, service: service.url };
  const runId = await start("acme.translate.v1.Translations/Translate", input);
  await vi.waitFor(() => expect(service.asked.map((one) => one.text)).toContain(text), within);
  return runId;
}

it("waiting.md: its commands, one after another", async () => {
  const commands = new GuideConsole(gateway, "waiting.md");
  await commands.run("taskmesh runs start acme.reminders.v1.Reminders/Remind");
  await vi.waitFor(
    async () => expect((await show(commands.ids.get("01c2…")!)).steps[1].status).toBe("STEP_STATUS_WAITING"),
    within,
  );
  await commands.run("taskmesh runs show");

  const delivery = await start("acme.orders.v1.Orders/Deliver", { order: "1" });
  commands.ids.set("01a2…", delivery);
  await commands.run("taskmesh runs signal");
  await commands.run("curl localhost:7480/api/v1/runs/01a2…/signals");
  expect((await taskmesh("runs", "result", delivery, "--wait")).out).toBe('{"courier":"Ada","rating":5}');

  const cart = await start("acme.orders.v1.Carts/Shop", { cents: 5_000 });
  commands.ids.set("01a2…", cart);
  await commands.run("taskmesh runs signal");
  const other = await start("acme.orders.v1.Carts/Shop", { cents: 5_000 });
  commands.ids.set("01a2…", other);
  await commands.run("curl localhost:7480/api/v1/runs/01a2…/signals");
  for (const runId of [cart, other]) {
    expect((await taskmesh("runs", "signal", runId, "checkout")).code).toBe(0);
    expect((await taskmesh("runs", "result", runId, "--wait")).out).toBe('{"cents":4500}');
  }

  for (const [how, token] of [
    ["curl https://mesh.example.com/api/v1/callbacks", "01a2….kZ3v…"],
    ["taskmesh runs callback", "01d2….x9Qa…"],
  ] as const) {
    const runId = await handOver(how);
    const { answer_to: url } = service.asked.find(({ text }) => text === how)!;
    commands.texts.set(token, new URL(url).pathname.split("/").at(-1)!);
    await commands.run(how);
    expect((await taskmesh("runs", "result", runId, "--wait")).out).toBe('{"text":"bonjour"}');
  }
  expect(commands.left).toEqual([]);
});

it("people.md: its commands, one after another", async () => {
  const commands = new GuideConsole(gateway, "people.md");
  await commands.run("taskmesh runs start");
  await commands.run("taskmesh assignments list");
  await commands.run("taskmesh assignments show");
  await commands.run("taskmesh assignments claim");
  await commands.run("taskmesh assignments comment");
  const runId = commands.ids.get("01a2…")!;
  const decide = (verb: string, ...args: string[]) => taskmesh("assignments", verb, runId, "decide", ...args);
  const bob = await decide("complete", "--person", "bob", "--group", "finance", "--input", '{"approved":true}');
  expect([bob.code, bob.err]).toEqual([5, expect.stringContaining("another person has claimed")]);
  const wrong = await decide("complete", "--person", "grace", "--input", '{"approved":"yes"}');
  expect([wrong.code, wrong.err]).toEqual([5, expect.stringContaining("approved: expected true or false")]);
  await commands.run("taskmesh assignments complete");
  expect(commands.left).toEqual([]);
  await becomes(runId, "SUCCEEDED");
  expect((await show(runId)).output).toEqual({ approved: true, by: "grace", note: "" });
  expect((await taskmesh("runs", "watch", runId)).out).toContain("grace: the ticket is missing");
  expect((await taskmesh("assignments", "list", "--run", runId)).err).toBe("Nothing waits for people.");
});

it("an assignment that was escalated says so, and for whom it is then", async () => {
  const { spec } = parseChainDocument(`contract:
  name: acme.expenses.v1.Expenses/Ask
  input: { who: string }
  output: { ok: bool }
steps:
  - id: ask
    human:
      assignees: "[input.who]"
      output: { ok: bool }
      escalations: [{ after: 100ms, groups: "['leads']" }]
output: { ok: steps.ask.output.ok }
`);
  await mesh.putChain(spec!);
  const runId = await start("acme.expenses.v1.Expenses/Ask", { who: "ann" });
  await vi.waitFor(async () => {
    const { out } = await taskmesh("assignments", "show", runId, "ask");
    expect(out).toMatch(/^for leads \(group\)$\n^escalated once$/m);
  }, within);
  const late = await taskmesh("assignments", "complete", runId, "ask", "--person", "ann", "--input", '{"ok":true}');
  expect([late.code, late.err]).toEqual([5, expect.stringContaining("for other people")]);
  const lead = ["--person", "bob", "--group", "leads", "--input", '{"ok":true}'];
  expect((await taskmesh("assignments", "complete", runId, "ask", ...lead)).code).toBe(0);
  expect((await taskmesh("runs", "result", runId, "--wait")).out).toBe('{"ok":true}');
});

it("a run that begins later says when, keeps what comes before, and a cancel ends it", async () => {
  const at = new Date(Date.now() + 3_600_000).toISOString();
  const runId = await start("acme.orders.v1.Orders/Deliver", { order: "2" }, "--start-at", at);
  expect((await taskmesh("runs", "show", runId)).out).toMatch(/^starts {4}\S+Z \(in 59 min \d+ s\)$/m);
  expect((await show(runId)).run.startAt).toBe(at);
  expect((await taskmesh("runs", "signal", runId, "picked_up", "--input", '{"courier":"Ada"}')).code).toBe(0);
  expect((await show(runId)).steps[0].status).toBe("STEP_STATUS_PENDING");
  expect(await taskmesh("runs", "cancel", runId)).toMatchObject({ code: 0, out: `${runId} is CANCELLED` });
});

it("a message of a wrong type, for nobody, or to a run that has ended, is refused by name", async () => {
  const runId = await start("acme.orders.v1.Orders/Deliver", { order: "3" });
  const signal = (...args: string[]) => taskmesh("runs", "signal", runId, ...args);
  expect((await signal("picked_up", "--input", '{"courier":7}')).err).toContain("courier: expected a string");
  expect((await signal("picked", "--input", "{}")).err).toContain('waits for no signal "picked"');
  await taskmesh("runs", "cancel", runId);
  expect((await signal("picked_up", "--input", "{}")).err).toContain("CANCELLED");
});

it("the namespace's retention is shown and changed", async () => {
  expect((await taskmesh("namespace", "show")).out).toBe("default keeps runs for 30 days after their end");
  expect((await taskmesh("namespace", "set", "--retention-days", "7")).out).toContain("for 7 days");
  expect(await taskmesh("namespace", "set", "--retention-days", "0")).toMatchObject({ code: 2 });
});
