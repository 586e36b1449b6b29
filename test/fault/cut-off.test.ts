/**
 * A worker loses its coordinators and keeps its broker, for longer than the ack wait of a start: what it runs stays with it, although the mesh
 * has not been told that it runs, and another worker is free.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { RunStatus, StartRunRequest } from "@taskmesh/proto";
import { ackWaitMs, unaryCall } from "@taskmesh/runtime";
import { afterEach, expect, it } from "vitest";
import { FaultProxy } from "../fixtures/fault-proxy.js";
import { allEnded, countWorker, startMesh } from "../fixtures/mesh.js";
import { waitFor } from "../fixtures/process.js";

const runs = 12;

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

it("a worker that is cut off from its coordinator finishes what it has begun", { timeout: 180_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "taskmesh-cut-off-"));
  cleanups.push(() => rmSync(folder, { recursive: true, force: true }));
  const mesh = await startMesh();
  cleanups.push(() => mesh.stop());
  await mesh.workers[0]!.terminate();
  const wire = await FaultProxy.open({ port: mesh.addresses[0]!.port });
  cleanups.push(() => wire.close());
  const worker = async (name: string, port: number): Promise<void> => {
    const made = countWorker(name, {
      TASKMESH_ADDRESS: `127.0.0.1:${port}`,
      LEDGER: join(folder, name),
      DELAY_MS: String(ackWaitMs + 10_000),
    });
    cleanups.push(() => made.kill());
    await made.start();
  };
  const begunBy = (name: string): number => {
    try {
      return readFileSync(join(folder, name), "utf8").trim().split("\n").length;
    } catch {
      return 0;
    }
  };
  await worker("first", wire.port);
  const method = "acme.bench.v1.BenchActions/Count";
  const request = StartRunRequest.fromPartial({ method, input: { $case: "json", value: "{}" } });
  await Promise.all(Array.from({ length: runs }, () => unaryCall(mesh.runs, mesh.runs.startRun, request)));
  await waitFor("every attempt to begin", () => begunBy("first") === runs);
  wire.refuse();
  // One that is bound is given up when its session lapses: that is another rule.
  expect(await mesh.sql`select count(*)::int as n from bindings`).toEqual([{ n: 0 }]);
  await worker("second", mesh.addresses[0]!.port);
  await allEnded(mesh, runs, 90_000);
  const ended = await mesh.sql`select status, count(*)::int as n from runs group by status`;
  expect(ended).toEqual([{ status: RunStatus.RUN_STATUS_SUCCEEDED, n: runs }]);
  expect(await mesh.sql`select max(attempt)::int as most from events`).toEqual([{ most: 1 }]);
  expect([begunBy("first"), begunBy("second")]).toEqual([runs, 0]);
});
