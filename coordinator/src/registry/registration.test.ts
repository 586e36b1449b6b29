import { TransportKind } from "@taskmesh/proto";
import { status, unaryCall } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadContract } from "../contracts/descriptors.js";
import { readContract, readRevisions } from "../store/registry.js";
import {
  descriptorSet,
  methodOf,
  openTestDatabase,
  registration,
  startTestCoordinator,
  stopDatabases,
  type TestCoordinator,
  type TestDatabase,
  type TestService,
  TestWorker,
} from "./registry-fixture.js";

afterAll(stopDatabases);

describe.each(["pglite", "postgres"] as const)("registration on %s", (kind) => {
  let database: TestDatabase;
  let coordinator: TestCoordinator;
  const service: TestService = { package: "acme.pages.v1" };

  beforeEach(async () => {
    database = await openTestDatabase(kind);
    coordinator = await startTestCoordinator(database.db);
  });
  afterEach(async () => {
    await coordinator.stop();
    await database.dispose();
  });

  const counts = async (): Promise<number[]> => {
    const [row] = await database.db.query<{ counts: string }>(
      `select concat_ws(',', (select count(*) from contracts), (select count(*) from descriptor_sets),
         (select count(*) from task_queues), (select count(*) from lanes), (select count(*) from callables)) as counts`,
    );
    return (row?.counts ?? "").split(",").map(Number);
  };

  it("stores a contract once however many workers register it at the same time", async () => {
    const streams = Array.from({ length: 8 }, () => coordinator.connect());
    const answers = await Promise.all(streams.map((stream) => stream.register(registration([service]))));
    expect(await counts()).toEqual([1, 1, 1, 1, 1]);
    expect(new Set(answers.map((answer) => answer.lanes[0]?.subject)).size).toBe(1);
    expect(new Set(answers.map((answer) => answer.sessionId)).size).toBe(8);
  });

  it("answers with the lane, the times and the transport", async () => {
    const answer = await coordinator.connect().register(registration([service], 7));
    expect(answer.lanes).toEqual([
      {
        taskQueue: "queue",
        subject: expect.stringMatching(/^start\.1\.\d+\.\d+$/),
        consumer: expect.any(String),
        slots: 7,
        packMax: 1,
      },
    ]);
    expect(answer.transport).toBe(TransportKind.TRANSPORT_KIND_MEMORY);
    expect(answer.namespaceId).toBe(1);
    expect(answer.coordinatorId).toBe("c1");
  });

  it("keeps every revision of a contract and lists the newest", async () => {
    await coordinator.connect().register(registration([service]));
    await coordinator.connect().register(registration([{ ...service, inputFields: ["lang"] }]));
    await coordinator.connect().register(registration([service]));
    const revisions = await readRevisions(database.db, 1, methodOf(service));
    expect(revisions.map((row) => row.revision)).toEqual([1, 2]);
    const listed = await unaryCall(coordinator.client, coordinator.client.listActions, { namespace: "default" });
    expect(listed.actions.map((action) => [action.method, action.revision, action.contract])).toEqual([
      [methodOf(service), 2, revisions[1]?.fingerprint],
    ]);
    const old = await readContract(database.db, 1, { fingerprint: revisions[0]?.fingerprint ?? "" });
    expect(loadContract(old?.descriptorSet ?? new Uint8Array(), methodOf(service)).input.fields).toHaveLength(1);
  });

  it("refuses a revision that breaks the one before, and keeps nothing of it", async () => {
    const warnings = async (inputFields: string[]): Promise<string[]> =>
      (await coordinator.connect().register(registration([{ ...service, inputFields }]))).warnings;
    expect(await warnings(["lang"])).toEqual([]);
    expect(await warnings(["lang", "depth"])).toEqual([]);
    const before = await counts();
    await expect(warnings(["language", "depth"])).rejects.toMatchObject({ reason: "CONTRACT_BREAKING" });
    expect(await counts()).toEqual(before);
  });

  it("takes two teams' files of one name, and two revisions of one import", async () => {
    const shared = { file: "shared/common.proto", package: "shared.v1" };
    const one: TestService = { package: "one.v1", file: "actions.proto", imports: [{ ...shared, fields: ["a"] }] };
    const two: TestService = { package: "two.v1", file: "actions.proto", imports: [{ ...shared, fields: ["a", "b"] }] };
    await coordinator.connect().register(registration([one]));
    await coordinator.connect().register(registration([two]));
    for (const [team, fields] of [
      [one, 1],
      [two, 2],
    ] as const) {
      const answer = await unaryCall(coordinator.client, coordinator.client.getContract, {
        namespace: "default",
        contract: "",
        method: methodOf(team),
      });
      const contract = loadContract(answer.descriptorSet, methodOf(team));
      const message = contract.registry.getMessage("shared.v1.Shared");
      expect(message?.fields).toHaveLength(fields);
    }
  });

  it("gives workers with different contracts different lanes of one queue", async () => {
    const other: TestService = { package: "acme.other.v1" };
    const one = await coordinator.connect().register(registration([service]));
    const both = await coordinator.connect().register(registration([service, other]));
    const reversed = await coordinator.connect().register(registration([other, service]));
    expect(one.lanes[0]?.subject).not.toBe(both.lanes[0]?.subject);
    expect(reversed.lanes[0]?.subject).toBe(both.lanes[0]?.subject);
  });

  it("refuses a method that belongs to a chain and keeps nothing of the registration", async () => {
    const other: TestService = { package: "acme.fresh.v1" };
    await database.db.query("insert into callables (namespace_id, method, kind) values (1, $1::text, 'chain')", [
      methodOf(service),
    ]);
    const before = await counts();
    const refused = coordinator.connect().register(registration([other, service]));
    await expect(refused).rejects.toMatchObject({
      reason: "METHOD_TAKEN",
      code: status.FAILED_PRECONDITION,
    });
    expect(await counts()).toEqual(before);
  });

  it.each(["taskmesh.v1", "taskmesh.http.v1", "grpc.health.v1", "google.x", "buf.x"])(
    "refuses services of the reserved package %s",
    async (name) => {
      const refused = coordinator.connect().register(registration([{ package: name, file: "mine.proto" }]));
      await expect(refused).rejects.toMatchObject({ reason: "SERVICE_RESERVED" });
    },
  );

  it("refuses garbage, truncated and incomplete descriptors", async () => {
    const complete = descriptorSet(service);
    const missing = descriptorSet({ ...service, imports: [{ file: "b.proto", package: "b", fields: [] }] });
    const garbage = [
      Buffer.from("not a descriptor set"),
      complete.subarray(0, -3),
      Buffer.alloc(0),
      missing.subarray(20),
    ];
    for (const bytes of garbage) {
      const refused = coordinator.connect().register({ ...registration([service]), descriptorSet: bytes });
      await expect(refused).rejects.toMatchObject({ reason: "DESCRIPTORS_INVALID" });
    }
    expect(await counts()).toEqual([0, 0, 0, 0, 0]);
  });

  it.each([
    ["no queue", { queues: [] }],
    ["an empty queue name", { queues: [{ taskQueue: "", methods: ["a/B"], slots: 1 }] }],
    ["a queue name of 10 kB", { queues: [{ taskQueue: "x".repeat(10_000), methods: ["a/B"], slots: 1 }] }],
    ["a queue name with NUL", { queues: [{ taskQueue: "a\u0000b", methods: ["a/B"], slots: 1 }] }],
    ["no slots", { queues: [{ taskQueue: "q", methods: ["a/B"], slots: 0 }] }],
    ["four billion slots", { queues: [{ taskQueue: "q", methods: ["a/B"], slots: 4_000_000_000 }] }],
    ["no method", { queues: [{ taskQueue: "q", methods: [], slots: 1 }] }],
    ["labels of 10 kB", { labels: { a: "x".repeat(10_000) } }],
    ["no transport of ours", { transports: [TransportKind.TRANSPORT_KIND_JETSTREAM] }],
  ])("refuses %s", async (_, change) => {
    const refused = coordinator.connect().register({ ...registration([service]), ...change });
    await expect(refused).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
  });

  it("takes queue names that mean something to NATS, and texts that Postgres does not take", async () => {
    const message = registration([service], 1, "a.*.> b");
    const answer = await coordinator.connect().register({ ...message, host: "a\u0000b", labels: { k: "\u0000" } });
    expect(answer.lanes[0]?.subject).toMatch(/^start\.\d+\.\d+\.\d+$/);
    const { workers } = await unaryCall(coordinator.client, coordinator.client.listWorkers, {
      namespace: "default",
    });
    expect(workers[0]?.host).toBe("a\ufffdb");
    expect(workers[0]?.queues[0]?.taskQueue).toBe("a.*.> b");
  });

  it("refuses an unknown namespace in every call", async () => {
    const refused = coordinator.connect().register({ ...registration([service]), namespace: "nobody" });
    await expect(refused).rejects.toMatchObject({ reason: "NAMESPACE_NOT_FOUND" });
    const listed = unaryCall(coordinator.client, coordinator.client.listActions, { namespace: "nobody" });
    await expect(listed).rejects.toMatchObject({ reason: "NAMESPACE_NOT_FOUND" });
  });

  it("describes an action with its complete descriptors and its live workers", async () => {
    const worker = await TestWorker.start(coordinator, registration([service], 4));
    const answer = await unaryCall(coordinator.client, coordinator.client.describeAction, {
      namespace: "default",
      method: methodOf(service),
    });
    expect(answer.action).toMatchObject({ servable: true, workers: 1, slots: 4, taskQueues: ["queue"] });
    expect(answer.workers.map((one) => one.sessionId)).toEqual([worker.sessionId]);
    expect(loadContract(answer.descriptorSet, methodOf(service)).fingerprint).toBe(answer.action?.contract);
    const unknown = unaryCall(coordinator.client, coordinator.client.describeAction, {
      namespace: "",
      method: "a/B",
    });
    await expect(unknown).rejects.toMatchObject({ reason: "METHOD_NOT_FOUND" });
    await worker.leave();
  });
});
