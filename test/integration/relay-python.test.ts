/**
 * The relay driven by a worker of plain generated stubs in Python: credits, acks, completions, probes, without our SDK.
 *
 * It needs python3 and pip's registry. Where they are missing the test fails in CI, and says why elsewhere.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { CompletionBatch } from "@taskmesh/proto";
import { MemoryBus } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { waitFor } from "../fixtures/process.js";
import { type PythonPeer, preparePython } from "../fixtures/python.js";
import { CarrierProbe, grantOf, newLane, RelayServer } from "../fixtures/transport-mesh.js";

const program = join(dirname(fileURLToPath(import.meta.url)), "../fixtures/relay_worker.py");
const slots = 4;

describe("relay with a worker of plain Python stubs", () => {
  const bus = new MemoryBus();
  const probe = new CarrierProbe("coordinator-python", bus.carrier("coordinator-python"));
  const lane = newLane();
  const events: { event: string; nonce?: string; held_max?: number; error?: string }[] = [];
  let errors = "";
  let server: RelayServer;
  let peer: PythonPeer;
  let worker: ChildProcess | undefined;

  beforeAll(async () => {
    peer = await preparePython();
    if ("missing" in peer) return;
    server = await new RelayServer().listen();
    await probe.start();
    await probe.carrier.ensureLane(lane);
    server.register("session-python", probe.carrier, [grantOf(lane, slots)]);
    const args = [program, `127.0.0.1:${server.port}`, "session-python", grantOf(lane, slots).taskQueue, String(slots)];
    worker = spawn(peer.python, args, {
      env: { ...process.env, PYTHONPATH: peer.stubs },
      stdio: ["pipe", "pipe", "pipe"],
    });
    createInterface({ input: worker.stdout! }).on("line", (line) => events.push(JSON.parse(line)));
    worker.stderr!.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
  }, 400_000);

  afterAll(async () => {
    worker?.kill("SIGKILL");
    await server?.close();
    await probe.carrier.stop();
  });

  it("runs starts within its credits, completes them, and hears probes", async () => {
    if ("missing" in peer) {
      if (process.env["CI"]) throw new Error(peer.missing);
      process.stderr.write(`relay with Python was not tested: ${peer.missing}\n`);
      return;
    }
    const runIds = Array.from({ length: 200 }, (_, i) => `python-${i}`);
    for (const runId of runIds) expect(await probe.publish(lane, runId, { size: 400 })).toEqual({ kind: "stored" });
    await waitFor("all completions", () => new Set(probe.completed).size === runIds.length, 30_000).catch((error) => {
      throw new Error(`${errors}\n${JSON.stringify(events)}`, { cause: error });
    });
    await waitFor("every start to be acked", () => bus.depth === 0);
    expect(probe.completed).toHaveLength(runIds.length);
    const [first] = CompletionBatch.decode(probe.deliveries[0]!.bytes).completions;
    expect(first).toMatchObject({ sessionId: "session-python", outcome: { $case: "output" } });

    probe.carrier.probe(lane.namespaceId, "session-python", "nonce-1");
    await waitFor("the probe", () => events.some(({ nonce }) => nonce === "nonce-1"));
    expect(server.streams).toBe(1);
    worker!.stdin!.end();
    await waitFor("its goodbye", () => events.some(({ event }) => event === "ended"));
    const ended = events.find(({ event }) => event === "ended");
    expect(ended!.held_max).toBeGreaterThan(1);
    expect(ended!.held_max).toBeLessThanOrEqual(slots);
    await waitFor("the stream's end", () => server.streams === 0);
    expect(errors).toBe("");
  }, 120_000);
});
