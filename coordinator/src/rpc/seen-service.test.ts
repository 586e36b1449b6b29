import { createHash, randomUUID } from "node:crypto";
import { status } from "@grpc/grpc-js";
import { type FilterSeenRequest, SeenServiceClient, SeenServiceService } from "@taskmesh/proto";
import { createClient, createLogger, unaryCall, uuidv7 } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createNamespaces, type Namespaces } from "../registry/namespaces.js";
import type { Database } from "../store/db.js";
import { migrate } from "../store/migrate.js";
import { openPglite } from "../store/pglite.js";
import { createListener, type Listener } from "./listener.js";
import { createSeenService } from "./seen-service.js";

const hash = (key: string) => createHash("sha256").update(key).digest();

describe("the memory across runs", () => {
  let db: Database;
  let namespaces: Namespaces;
  let listener: Listener;
  let client: SeenServiceClient;

  beforeAll(async () => {
    db = await openPglite();
    await migrate(db);
    namespaces = createNamespaces(db, ["team"]);
    await namespaces.start();
    listener = createListener({
      address: { host: "127.0.0.1", port: 0 },
      tokens: { tokens: [] },
      log: createLogger("test", { write: () => undefined }),
      services: (to) => to.addService(SeenServiceService, createSeenService({ db, namespaces })),
    });
    await listener.start();
    client = createClient(SeenServiceClient, { addresses: [listener.address] });
  });
  afterAll(async () => {
    client?.close();
    await listener?.stop();
    await namespaces?.stop();
    await db?.close();
  });

  /** A run of `method`, as far as the memory asks about it. */
  const addRun = async (method: string, namespaceId = 1): Promise<string> => {
    const id = uuidv7();
    await db.query(
      `insert into runs (id, namespace_id, method, chain_version, contract, status, version, last_seq, priority, accepted_at, deadline_at, wakeup_at, state)
       values ($1::text::uuid, $2::int, $3::text, 1, '', 1, 1, 1, 0, now(), now(), now(), '')`,
      [id, namespaceId, method],
    );
    return id;
  };

  const ask = async (request: Partial<FilterSeenRequest> & { keys?: string[] }): Promise<boolean[]> => {
    const { keys = [], ...rest } = request;
    const full = { namespace: "", runId: "", stepId: "s", item: 0, set: "default", keyHashes: keys.map(hash), ...rest };
    const { fresh } = await unaryCall(client, client.filterSeen, full);
    return fresh;
  };

  it("passes a key once per chain and set, and the same answer to a repeated attempt", async () => {
    const [first, second] = [await addRun("a.B/C"), await addRun("a.B/C")];
    expect(await ask({ runId: first, keys: ["x", "y"] })).toEqual([true, true]);
    expect(await ask({ runId: second, keys: ["y", "z"] })).toEqual([false, true]);
    expect(await ask({ runId: first, keys: ["x", "y"] })).toEqual([true, true]);
    expect(await ask({ runId: first, keys: ["y", "z"] })).toEqual([true, false]);
    // Another step or item of the run is a caller like any other.
    expect(await ask({ runId: first, stepId: "t", keys: ["x"] })).toEqual([false]);
    expect(await ask({ runId: first, item: 1, keys: ["x"] })).toEqual([false]);
  });

  it("keeps sets, methods and namespaces apart", async () => {
    const [run, other, elsewhere] = [await addRun("d.E/F"), await addRun("d.E/G"), await addRun("d.E/F", 2)];
    expect(await ask({ runId: run, keys: ["x"] })).toEqual([true]);
    expect(await ask({ runId: run, set: "more", keys: ["x"] })).toEqual([true]);
    expect(await ask({ runId: other, keys: ["x"] })).toEqual([true]);
    expect(await ask({ runId: elsewhere, namespace: "team", keys: ["x"] })).toEqual([true]);
  });

  it("calls a key that is named twice new at its first place only", async () => {
    expect(await ask({ runId: await addRun("h.I/J"), keys: ["x", "x", "y"] })).toEqual([true, false, true]);
  });

  it("gives each of 200 keys to exactly one of 8 runs that ask at once", async () => {
    const keys = Array.from({ length: 200 }, (_, index) => `key-${index}`);
    const runs = await Promise.all(Array.from({ length: 8 }, () => addRun("k.L/M")));
    const answers = await Promise.all(
      runs.map((runId, turn) => ask({ runId, keys: turn % 2 ? keys : keys.toReversed() })),
    );
    const fresh = answers.flatMap((answer, turn) =>
      (turn % 2 ? keys : keys.toReversed()).filter((_, at) => answer[at]),
    );
    expect(fresh.toSorted()).toEqual(keys.toSorted());
  });

  it("refuses what breaks its bounds, and runs of other namespaces", async () => {
    const runId = await addRun("n.O/P");
    const refused = async (request: Parameters<typeof ask>[0]) => ask(request).catch((error: unknown) => error);
    const invalid = { code: status.INVALID_ARGUMENT, reason: "ARGUMENT_INVALID" };
    expect(await refused({ runId: "nonsense" })).toMatchObject(invalid);
    expect(await refused({ runId, set: "x".repeat(129) })).toMatchObject(invalid);
    expect(await refused({ runId, stepId: "a\0b" })).toMatchObject(invalid);
    expect(await refused({ runId, keyHashes: [Buffer.alloc(31)] })).toMatchObject(invalid);
    expect(await refused({ runId, keyHashes: Array(10_001).fill(Buffer.alloc(32)) })).toMatchObject(invalid);
    expect(await refused({ runId: randomUUID() })).toMatchObject({ code: status.NOT_FOUND, reason: "RUN_NOT_FOUND" });
    expect(await refused({ runId, namespace: "team" })).toMatchObject({
      code: status.NOT_FOUND,
      reason: "RUN_NOT_FOUND",
    });
  });

  it("takes 10,000 keys at once", async () => {
    const keys = Array.from({ length: 10_000 }, (_, index) => `many-${index}`);
    const fresh = await ask({ runId: await addRun("q.R/S"), keys });
    expect(fresh.every(Boolean)).toBe(true);
  });
});
