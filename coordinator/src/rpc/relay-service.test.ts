import { credentials } from "@grpc/grpc-js";
import { RelayServiceClient, StartStep, TransportKind } from "@taskmesh/proto";
import { fromServiceError, type StatusError } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  openTestDatabase,
  registration,
  startTestCoordinator,
  stopDatabases,
  type TestCoordinator,
  type TestDatabase,
  type TestService,
  TestWorker,
  waitFor,
} from "../registry/registry-fixture.js";

afterAll(stopDatabases);

const service: TestService = { package: "acme.pages.v1" };
const overRelay = { transports: [TransportKind.TRANSPORT_KIND_RELAY] };

describe("relay", () => {
  let database: TestDatabase;
  let coordinator: TestCoordinator;

  beforeEach(async () => {
    database = await openTestDatabase("pglite");
    coordinator = await startTestCoordinator(database.db, { intervals: { nonceMaxAgeMs: 30_000 } });
  });
  afterEach(async () => {
    await coordinator.stop();
    await database.dispose();
  });

  const open = async (sessionId: string, namespace = "default"): Promise<StatusError> => {
    const address = `127.0.0.1:${coordinator.listener.address.port}`;
    const client = new RelayServiceClient(address, credentials.createInsecure());
    const call = client.relay();
    const failed = new Promise<StatusError>((resolve) => call.on("error", (error) => resolve(fromServiceError(error))));
    call.write({ message: { $case: "open", value: { namespace, sessionId } } });
    const error = await failed;
    client.close();
    return error;
  };

  it("brings starts to a worker whose probes prove the same way, and makes it assignable", async () => {
    const worker = await TestWorker.start(coordinator, { ...registration([service], 2), ...overRelay }, 30);
    const openedAtMs = performance.now();
    expect(worker.registered.transport).toBe(TransportKind.TRANSPORT_KIND_RELAY);
    await waitFor("the lane", () => coordinator.registry.catalogue.liveLanes().length === 1);
    const [live] = coordinator.registry.catalogue.liveLanes();
    if (!live) throw new Error("the lane is gone");
    const start = { ...StartStep.create(), runId: "r", stepId: "s", attempt: 1, lease: "relayed" };
    const bytes = StartStep.encode(start).finish();
    coordinator.carrier.publishStart({ lane: live.state.lane, id: "relayed", bytes }, () => {});
    await waitFor("the start", () => worker.starts.includes("relayed"));
    const session = coordinator.registry.sessions.find(worker.sessionId);
    // The age would grow with the session if no nonce came back through the relay.
    await waitFor("an echo", () => {
      const nowMs = performance.now();
      return (session?.nonces.ageMs(nowMs) ?? Infinity) < nowMs - openedAtMs - 500;
    });
    await worker.leave();
  });

  it("refuses sessions that are unknown, another namespace's, or no ids at all", async () => {
    for (const id of ["", "nobody", "a".repeat(10_000), "x\u0000y", "AAAAAAAAAAAAAAAAAAAAAAAA"]) {
      expect(await open(id)).toMatchObject({ reason: "SESSION_NOT_FOUND" });
    }
    const worker = await TestWorker.start(coordinator, { ...registration([service]), ...overRelay }, 30);
    expect(await open(worker.sessionId, "nobody")).toMatchObject({ reason: "NAMESPACE_NOT_FOUND" });
    await worker.leave();
  });
});
