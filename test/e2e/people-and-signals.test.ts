/** The guides of waiting and people by the command line alone, against an embedded mesh of its own. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { freePorts } from "../fixtures/ports.js";
import { ServerProcess, waitFor } from "../fixtures/process.js";

const root = join(import.meta.dirname, "..", "..");
const node = ["--import", "tsx", "--conditions=@taskmesh/source", join(root, "cli/src/main.ts")];
const folder = mkdtempSync(join(tmpdir(), "taskmesh-people-"));
let dev: ServerProcess;
let env: Record<string, string | undefined>;

/** Runs a command in the repository, where its sources resolve; its output and exit code. */
function taskmesh(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [...node, ...args], { cwd: root, env }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? 1), out: out.trim(), err: err.trim() }),
    );
  });
}

const approval = `contract:
  name: acme.expenses.v1.Expenses/Approve
  input: { amount: double, managers: repeated string }
  output: { approved: bool }
steps:
  - id: decide
    human:
      title: "'Approve ' + string(input.amount)"
      assignees: input.managers
      output: { approved: bool }
output:
  approved: steps.decide.output.approved
`;
const delivery = `contract:
  name: acme.orders.v1.Orders/Deliver
  input: { order: string }
  output: { courier: string }
steps:
  - id: picked_up
    signal: { output: { courier: string } }
output:
  courier: steps.picked_up.output.courier
`;

beforeAll(async () => {
  const [grpc, http] = await freePorts(2);
  env = {
    ...process.env,
    NO_COLOR: "1",
    TASKMESH_GRPC_ADDRESS: `127.0.0.1:${grpc}`,
    TASKMESH_HTTP_ADDRESS: `127.0.0.1:${http}`,
    TASKMESH_URL: `http://127.0.0.1:${http}`,
  };
  dev = new ServerProcess(process.execPath, [...node, "dev", "--data", join(folder, "data")], { cwd: root, env });
  await dev.ready("the mesh", () => dev.output.includes("Taskmesh runs"), 120_000);
  for (const [name, text] of Object.entries({ approval, delivery })) {
    const file = join(folder, `${name}.yaml`);
    writeFileSync(file, text);
    expect(await taskmesh("chains", "apply", file)).toMatchObject({ code: 0 });
  }
}, 180_000);
afterAll(async () => {
  dev?.signal("SIGTERM");
  await dev?.exited();
  rmSync(folder, { recursive: true, force: true });
});

const start = async (...args: string[]): Promise<string> => (await taskmesh("runs", "start", ...args)).out;

it("the namespace's retention is shown and changed", async () => {
  expect((await taskmesh("namespace", "show")).out).toBe("default keeps runs for 30 days after their end");
  expect((await taskmesh("namespace", "set", "--retention-days", "7")).out).toContain("for 7 days");
  expect(await taskmesh("namespace", "set", "--retention-days", "0")).toMatchObject({ code: 2 });
});

it("an assignment is listed, claimed, refused to others, checked and completed", async () => {
  const run = await start("acme.expenses.v1.Expenses/Approve", "--input", '{"amount":250,"managers":["grace"]}');
  const inbox = await taskmesh("assignments", "list", "--person", "grace");
  expect(inbox.out).toContain(run);
  expect(inbox.out).toContain("Approve 250");
  const decide = (verb: string, ...args: string[]) => taskmesh("assignments", verb, run, "decide", ...args);
  expect(await decide("claim", "--person", "grace")).toMatchObject({ code: 0 });
  const bob = await decide("complete", "--person", "bob", "--input", '{"approved":true}');
  expect(bob.code).not.toBe(0);
  expect(bob.err).toContain("for other people");
  const wrong = await decide("complete", "--person", "grace", "--input", '{"approved":"yes"}');
  expect(wrong.code).not.toBe(0);
  expect(wrong.err).toContain("approved: expected true or false");
  expect(await decide("complete", "--person", "grace", "--input", '{"approved":true}')).toMatchObject({ code: 0 });
  expect((await taskmesh("runs", "result", run)).out).toBe('{"approved":true}');
}, 120_000);

it("a signal is checked and taken, and a run can begin later", async () => {
  const run = await start("acme.orders.v1.Orders/Deliver", "--input", '{"order":"1"}');
  const wrong = await taskmesh("runs", "signal", run, "picked_up", "--input", '{"courier":7}');
  expect(wrong.code).not.toBe(0);
  expect(wrong.err).toContain("courier: expected a string");
  expect(await taskmesh("runs", "signal", run, "picked_up", "--input", '{"courier":"Ada"}')).toMatchObject({ code: 0 });
  expect((await taskmesh("runs", "result", run)).out).toBe('{"courier":"Ada"}');
  const startAt = new Date(Date.now() + 3_600_000).toISOString();
  const later = await start("acme.orders.v1.Orders/Deliver", "--start-at", startAt, "--input", '{"order":"2"}');
  const status = async (): Promise<string> =>
    (JSON.parse((await taskmesh("runs", "show", later, "--json")).out) as { run: { status: string } }).run.status;
  expect(await status()).toBe("RUN_STATUS_RUNNING");
  expect(await taskmesh("runs", "cancel", later)).toMatchObject({ code: 0 });
  await waitFor("the run to be cancelled", async () => (await status()) === "RUN_STATUS_CANCELLED", 30_000);
}, 120_000);
