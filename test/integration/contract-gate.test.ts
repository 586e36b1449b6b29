/** How contracts evolve, from outside: a worker of the SDK whose contract broke, the REST API, and the command line before a deployment. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { defineAction, startWorker, type Worker } from "@taskmesh/action-sdk";
import { type Coordinator, createCoordinator, openPglite } from "@taskmesh/coordinator";
import type { Gateway } from "@taskmesh/gateway";
import { coordinatorConfig, createLogger, formatAddress, MemoryBus, type StatusError } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileProtos } from "../fixtures/compile-protos.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

const method = "shop.v1.ShopActions/Price";
const proto = (total: string): string => `syntax = "proto3";
package shop.v1;
service ShopActions {
  rpc Price(PriceRequest) returns (PriceResponse);
}
message PriceRequest { string id = 1; }
message PriceResponse {
  ${total}
}
`;
const first = proto("double total = 1;");
const broken = proto("string total = 1;");
const grown = proto("double total = 1; string currency = 2;");

/** What generated code would hold: the handler of these tests answers with nothing. */
const price = {
  path: `/${method}`,
  requestStream: false,
  responseStream: false,
  requestSerialize: () => Buffer.alloc(0),
  requestDeserialize: () => ({}),
  responseSerialize: () => Buffer.alloc(0),
  responseDeserialize: () => ({}),
} as const;

const chain = `
contract: { name: shop.v1.Shop/Bill, input: { id: string }, output: { value: double } }
steps:
  - { id: price, call: ${method}, input: { id: input.id } }
output: { value: steps.price.output.total }
`;

let coordinator: Coordinator;
let gateway: Gateway;
const workers: Worker[] = [];
const folder = mkdtempSync(join(tmpdir(), "taskmesh-gate-"));

async function serve(text: string): Promise<Worker> {
  const worker = await startWorker({
    descriptors: compileProtos({ "shop.proto": text }),
    actions: [defineAction(price, async () => ({}))],
    address: formatAddress(coordinator.listener.address),
    carrier: coordinator.carrier,
    handleSignals: false,
    quiet: true,
    logger: createLogger("worker", { level: "silent" }),
  });
  workers.push(worker);
  return worker;
}

const main = join(import.meta.dirname, "..", "..", "cli", "src", "main.ts");
function taskmesh(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const words = ["--import", "tsx", "--conditions=@taskmesh/source", main, "--url", gateway.address, ...args];
  const child = spawn(process.execPath, words, { env: { ...process.env, NO_COLOR: "1" } });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
}

beforeAll(async () => {
  const bus = new MemoryBus();
  const env = { TASKMESH_GRPC_ADDRESS: "127.0.0.1:0", TASKMESH_LOG_LEVEL: "silent" };
  coordinator = createCoordinator(coordinatorConfig(env, { embedded: true }), {
    database: await openPglite(),
    carrier: (id) => bus.carrier(id),
    exclusive: true,
  });
  await coordinator.start();
  gateway = await startTestGateway([coordinator.listener.address.port]);
  await serve(first);
  const stored = await ask(gateway, "/api/v1/chains", { body: chain, headers: { "content-type": "application/yaml" } });
  expect(stored.status).toBe(201);
});
afterAll(async () => {
  await Promise.all(workers.map((worker) => worker.stop()));
  await gateway?.stop();
  await coordinator?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const bodyOf = (text: string) => ({
  descriptorSet: Buffer.from(compileProtos({ "shop.proto": text })).toString("base64"),
});
const check = (text: string) => ask(gateway, "/api/v1/contracts/check", { body: bodyOf(text) });

describe("a contract that breaks what is registered", () => {
  it("ends its worker's start with the rule, the field and what to do, and is not tried again", async () => {
    const refused = await serve(broken).catch((error: StatusError) => error);
    expect(refused).toMatchObject({ reason: "CONTRACT_BREAKING" });
    expect((refused as StatusError).message).toContain("shop.v1.PriceResponse.total was double, and is string");
    expect((refused as StatusError).message).toContain("taskmesh contracts allow");
  });

  it("is shown by a dry run over REST, with the chain that reads the field", async () => {
    const { status, json } = await check(broken);
    expect(status).toBe(200);
    expect(json).toMatchObject({
      mode: "GATE_MODE_REFUSE",
      judgements: [
        {
          method,
          verdict: "CONTRACT_VERDICT_REFUSED",
          baseRevision: 1,
          violations: [
            { rule: "FIELD_WIRE_JSON_COMPATIBLE_TYPE", file: "shop.proto", sides: ["CONTRACT_SIDE_OUTPUT"] },
          ],
          chains: [{ name: "shop.v1.Shop/Bill", uses: [{ field: "shop.v1.PriceResponse.total" }] }],
        },
      ],
    });
    expect((await check(grown)).json.judgements).toMatchObject([{ verdict: "CONTRACT_VERDICT_COMPATIBLE" }]);
    const unknown = await ask(gateway, "/api/v1/contracts/check", { body: { ...bodyOf(first), set: "x" } });
    expect(unknown.json).toMatchObject({ status: 400, reason: "ARGUMENT_INVALID" });
    const none = await ask(gateway, "/api/v1/contracts/check", { body: { descriptorSet: "AAAA" } });
    expect(none.json).toMatchObject({ status: 400, reason: "DESCRIPTORS_INVALID" });
  });

  it("ends a check before the deployment with exit code 1, as text, JSON and JUnit", async () => {
    const [path, report] = [join(folder, "shop.proto"), join(folder, "report.xml")];
    writeFileSync(path, broken);
    const bad = await taskmesh("contracts", "check", folder, "--junit", report);
    expect(bad.code).toBe(1);
    expect(bad.stdout).toMatch(/refused {5}shop\.v1\.ShopActions\/Price {2}against revision 1/);
    expect(bad.stdout).toMatch(/shop\.proto:8 shop\.v1\.PriceResponse\.total was double, and is string/);
    expect(bad.stdout).toContain("reads shop.v1.PriceResponse.total at output.value: steps.price.output.total");
    expect(bad.stderr).toContain(`taskmesh contracts allow ${method}`);
    const xml = readFileSync(report, "utf8");
    expect(xml).toContain('<testsuite name="taskmesh contracts" tests="1" failures="1" errors="0" skipped="0">');
    expect(xml).toContain('<testcase classname="shop.v1.ShopActions" name="Price" time="0">');
    expect(xml).toContain('<failure type="FIELD_WIRE_JSON_COMPATIBLE_TYPE"');

    writeFileSync(path, grown);
    const good = await taskmesh("--json", "contracts", "check", folder);
    expect(good.code).toBe(0);
    expect(JSON.parse(good.stdout)).toMatchObject({ bad: 0, judgements: [{ verdict: "CONTRACT_VERDICT_COMPATIBLE" }] });
  });

  it("passes once somebody allows it and says why", async () => {
    const { json } = await check(broken);
    const contract = json.judgements[0].contract as string;
    const silent = await ask(gateway, "/api/v1/contracts/allow", { body: { method, contract } });
    expect(silent.json).toMatchObject({ status: 400, reason: "ARGUMENT_INVALID" });
    const { code } = await taskmesh("contracts", "allow", method, contract, "--reason", "agreed with billing");
    expect(code).toBe(0);
    await serve(broken);
    const { json: shown } = await ask(gateway, "/api/v1/contracts/gate");
    expect(shown.decisions).toMatchObject([
      { method, contract, verdict: "CONTRACT_VERDICT_ALLOWED", reason: "agreed with billing" },
    ]);
    expect(shown.decisions[0].violations).toMatchObject([{ subject: "shop.v1.PriceResponse.total" }]);
  });

  it("is treated as the namespace wants it, set over REST or the command line", async () => {
    const other = await ask(gateway, "/api/v1/contracts/gate", { method: "PUT", body: { mode: "GATE_MODE_ALLOW" } });
    expect(other.json).toMatchObject({ status: 400 });
    const set = await taskmesh("contracts", "gate", "quarantine");
    expect(set.stdout).toContain("quarantine");
    expect((await check(proto("bool total = 1;"))).json).toMatchObject({
      mode: "GATE_MODE_QUARANTINE",
      judgements: [{ verdict: "CONTRACT_VERDICT_QUARANTINED" }],
    });
  });
});

describe("who reads a field", () => {
  it("is answered by REST and the command line", async () => {
    const { json } = await ask(gateway, "/api/v1/contracts/uses?field=PriceResponse.total");
    expect(json).toMatchObject({
      uses: [{ chain: "shop.v1.Shop/Bill", path: "output.value", kind: "FIELD_USE_KIND_READ" }],
      // The mesh's own chain that launches was looked at too.
      chains: 2,
    });
    const { stdout } = await taskmesh("contracts", "uses", "PriceResponse.total");
    expect(stdout).toContain("shop.v1.Shop/Bill version 1");
    expect((await ask(gateway, "/api/v1/contracts/uses")).status).toBe(400);
  });
});
