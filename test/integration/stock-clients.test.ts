/**
 * Durable gRPC from stock clients of other languages (test/clients): what one of them sees, all see. Where a toolchain is missing its language
 * fails in CI, and says why elsewhere.
 */
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create, toBinary } from "@bufbuild/protobuf";
import { Client } from "@grpc/grpc-js";
import { defineAction, defineStream, fail } from "@taskmesh/action-sdk";
import { RunStatus } from "@taskmesh/proto";
import { createClient, formatAddress, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { compileService } from "../fixtures/dynamic-actions.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { prepareStockClient, runStockClient, stockLanguages } from "../fixtures/stock-clients.js";

const service = "acme.stock.v1.StockActions";
const proto = join(import.meta.dirname, "../clients/stock.proto");
const compiled = compileService("stock.proto", readFileSync(proto, "utf8"));
const large = 9_007_199_254_740_993n;

/** What a client prints. */
interface Report {
  unary: { letters: number; large: string; runId: string };
  sameKey: string[];
  otherInput: string;
  deadline: { code: string; runId: string };
  stream: { letters: string[]; runId: string };
  refused: { code: string; reason: string; why: string; number: string };
  async: { letters: number; large: string; runId: string };
}

let mesh: InProcessMesh;
const reports = new Map<string, Report | Error>();
const counted: string[] = [];

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  const refusal = compiled.message("acme.stock.v1.Refusal");
  const actions = [
    defineAction(compiled.entry(`${service}/Count`), async ({ text }: { text: string }) => {
      counted.push(text);
      return { letters: text.length, large };
    }),
    defineAction(compiled.entry(`${service}/Hold`), () => new Promise<never>(() => {})),
    defineStream(compiled.entry(`${service}/Spell`), async function* ({ text }: { text: string }) {
      for (const letter of text) yield { text: letter };
    }),
    defineAction(compiled.entry(`${service}/Refuse`), (): never => {
      const value = Buffer.from(toBinary(refusal, create(refusal, { why: "too boring", number: large } as never)));
      throw fail.final("TOO_BORING", "nothing to see", { details: [{ type: "acme.stock.v1.Refusal", value }] });
    }),
  ];
  await mesh.serve(actions, { descriptors: compiled.descriptors, carrier: mesh.coordinator.carrier, slots: 100 });
  await untilServed();
  const address = formatAddress(mesh.address);
  const once = async (language: (typeof stockLanguages)[number]): Promise<Report> => {
    const client = await prepareStockClient(language);
    if ("missing" in client) throw new Error(client.missing);
    return (await runStockClient(client, address, `${language} ${randomUUID()}`)) as Report;
  };
  await Promise.all(
    stockLanguages.map(async (language) => {
      const report = await once(language).catch((error: unknown) => error as Error);
      reports.set(language, report);
    }),
  );
}, 700_000);
afterAll(() => mesh?.stop());

/** A path appears soon after its registration. */
async function untilServed(): Promise<void> {
  const client = createClient(Client, { addresses: [mesh.address] });
  const { path, requestSerialize, responseDeserialize } = compiled.entry(`${service}/Count`);
  const call = (): Promise<unknown> =>
    new Promise((resolve, reject) => {
      const done = (error: Error | null, value: unknown): void => (error ? reject(error) : resolve(value));
      client.makeUnaryRequest(path, requestSerialize, responseDeserialize, { text: "ready?" }, done);
    });
  await vi.waitFor(call, { timeout: 60_000, interval: 200 });
  client.close();
}

/** What the client of a language saw; undefined: it can't be had here. */
function reportOf(language: string): Report | undefined {
  const report = reports.get(language)!;
  if (!(report instanceof Error)) return report;
  if (process.env["CI"] || !report.message.includes("can't be built here")) throw report;
  process.stderr.write(`durable gRPC from ${language} was not tested: ${report.message}\n`);
  return undefined;
}

async function statusOf(runId: string): Promise<RunStatus> {
  const { run } = await unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: true });
  return run!.status;
}

it.each(stockLanguages)("%s gets the output of a durable run, its id ahead of it", async (language) => {
  const report = reportOf(language);
  if (!report) return;
  expect(report.unary).toEqual({ letters: 5, large: String(large), runId: expect.stringMatching(/^[0-9a-f-]{36}$/) });
  expect(await statusOf(report.unary.runId)).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
});

it.each(stockLanguages)("%s repeats a call by its key, and has one run", (language) => {
  const report = reportOf(language);
  if (!report) return;
  const [first, second] = report.sameKey;
  expect(first).toBeTruthy();
  expect(second).toBe(first);
  expect(report.otherInput).toBe("ALREADY_EXISTS");
  expect(counted).not.toContain("other");
});

it.each(stockLanguages)("%s gives up, and its run expires", async (language) => {
  const report = reportOf(language);
  if (!report) return;
  expect(report.deadline.code).toBe("DEADLINE_EXCEEDED");
  const { runId } = report.deadline;
  await vi.waitFor(async () => expect(await statusOf(runId)).toBe(RunStatus.RUN_STATUS_EXPIRED), { timeout: 30_000 });
});

it.each(stockLanguages)("%s reads the action's own detail of a failure", (language) => {
  const report = reportOf(language);
  if (!report) return;
  const refused = { code: "ABORTED", reason: "RUN_FAILED", why: "too boring", number: String(large) };
  expect(report.refused).toEqual(refused);
});

it.each(stockLanguages)("%s reads a stream of outputs, of which the last is on record", async (language) => {
  const report = reportOf(language);
  if (!report) return;
  expect(report.stream.letters).toEqual(["h", "o", "p"]);
  const { output } = await mesh.result(report.stream.runId);
  const recorded = output?.data?.$case === "inline" ? [...output.data.value] : [];
  expect(recorded).toEqual([0x0a, 1, "p".charCodeAt(0)]);
});

it.each(stockLanguages)("%s need not wait", async (language) => {
  const report = reportOf(language);
  if (!report) return;
  expect(report.async).toMatchObject({ letters: 0, large: "0" });
  expect((await mesh.result(report.async.runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
});
