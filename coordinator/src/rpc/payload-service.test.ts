import { createHash, randomBytes } from "node:crypto";
import type { PutPayloadResponse } from "@taskmesh/proto";
import { fromServiceError, payloadBytesMax, type StatusError } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  openTestDatabase,
  startTestCoordinator,
  stopDatabases,
  type TestCoordinator,
  type TestDatabase,
  waitFor,
} from "../registry/registry-fixture.js";
import { deleteIncompletePayloads, getPayload, putPayload } from "../store/payloads.js";

afterAll(stopDatabases);

const mib = 1024 * 1024;

describe.each(["pglite", "postgres"] as const)("payloads on %s", (kind) => {
  let database: TestDatabase;
  let coordinator: TestCoordinator;

  beforeEach(async () => {
    database = await openTestDatabase(kind);
    coordinator = await startTestCoordinator(database.db, { namespaces: ["other"] });
  });
  afterEach(async () => {
    await coordinator.stop();
    await database.dispose();
  });

  const put = async (bytes: Buffer, options: { namespace?: string; chunk?: number; broken?: boolean } = {}) => {
    const { namespace = "default", chunk = mib, broken = false } = options;
    let call: ReturnType<typeof coordinator.payloads.putPayload> | undefined;
    const answer = new Promise<PutPayloadResponse>((resolve, reject) => {
      call = coordinator.payloads.putPayload((error, response) =>
        error ? reject(fromServiceError(error)) : resolve(response),
      );
    });
    answer.catch(() => {});
    let failed = false;
    answer.catch(() => {
      failed = true;
    });
    call?.write({ namespace, chunk: bytes.subarray(0, chunk) });
    for (let at = chunk; at < bytes.length && !failed; at += chunk) {
      const room = call?.write({ namespace: "", chunk: bytes.subarray(at, at + chunk) });
      if (!room) await Promise.race([new Promise((resolve) => call?.once("drain", resolve)), answer.catch(() => {})]);
    }
    if (broken) call?.cancel();
    else call?.end();
    return answer;
  };
  const get = (reference: string, namespace = "default"): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      const call = coordinator.payloads.getPayload({ namespace, reference });
      call.on("data", ({ chunk }) => chunks.push(chunk));
      call.on("error", (error) => reject(fromServiceError(error)));
      call.on("end", () => resolve(Buffer.concat(chunks)));
    });
  const referenceOf = (response: PutPayloadResponse): string =>
    response.payload?.data?.$case === "reference" ? response.payload.data.value : "";
  const rows = async (): Promise<number[]> => {
    const [row] = await database.db.query<{ payloads: number; chunks: number }>(
      "select (select count(*) from payloads)::int as payloads, (select count(*) from payload_chunks)::int as chunks",
    );
    return [row?.payloads ?? -1, row?.chunks ?? -1];
  };

  it("stores 20 MB in chunks and gives the same bytes back", async () => {
    const bytes = randomBytes(20 * 1000 * 1000);
    const { payload } = await put(bytes);
    expect(payload).toMatchObject({ sizeBytes: 20_000_000n, contract: "", keyId: "" });
    expect(payload?.sha256).toEqual(createHash("sha256").update(bytes).digest());
    const again = await get(payload?.data?.$case === "reference" ? payload.data.value : "");
    expect(again.equals(bytes)).toBe(true);
  });

  it("gives equal bytes one reference, also when they come at the same time, in one namespace only", async () => {
    const bytes = randomBytes(2 * mib + 1);
    const answers = await Promise.all([put(bytes), put(bytes, { chunk: 100_000 }), put(bytes), put(bytes)]);
    expect(new Set(answers.map(referenceOf)).size).toBe(1);
    const [payloads] = await rows();
    expect(payloads).toBe(1);
    const reference = referenceOf(answers[0] as PutPayloadResponse);
    expect(await putPayload(database.db, 1, bytes)).toBe(reference);
    await expect(get(reference, "other")).rejects.toMatchObject({ reason: "PAYLOAD_NOT_FOUND" });
    expect(referenceOf(await put(bytes, { namespace: "other" }))).toBe(reference);
    expect((await rows())[0]).toBe(2);
  });

  it("stores an empty message", async () => {
    const response = await put(Buffer.alloc(0));
    expect(await get(referenceOf(response))).toHaveLength(0);
  });

  it("takes exactly 64 MiB and not a byte more", async () => {
    const bytes = Buffer.alloc(payloadBytesMax, 7);
    const reference = referenceOf(await put(bytes));
    expect((await getPayload(database.db, 1, reference))?.length).toBe(payloadBytesMax);
    const more = Buffer.concat([bytes, Buffer.from([1])]);
    await expect(put(more)).rejects.toMatchObject({ reason: "PAYLOAD_TOO_LARGE" });
    expect((await rows())[0]).toBe(1);
  });

  it("refuses chunks above 1 MiB, an absent namespace and an unknown one", async () => {
    await expect(put(randomBytes(2 * mib), { chunk: mib + 1 })).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
    await expect(put(Buffer.from("x"), { namespace: "" })).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
    await expect(put(Buffer.from("x"), { namespace: "no" })).rejects.toMatchObject({ reason: "NAMESPACE_NOT_FOUND" });
    expect(await rows()).toEqual([0, 0]);
  });

  it("keeps nothing of a call that broke off", async () => {
    await expect(put(randomBytes(3 * mib), { broken: true })).rejects.toMatchObject({ reason: "CALL_CANCELLED" });
    await waitFor("the clean-up", async () => (await rows()).every((count) => count === 0));
  });

  it("deletes what was left incomplete long ago, and nothing else", async () => {
    await database.db.query(
      "insert into payloads (namespace_id, created_at) values (1, now() - interval '2 hours'), (1, now())",
    );
    await putPayload(database.db, 1, randomBytes(10));
    expect(await deleteIncompletePayloads(database.db)).toBe(1);
    expect((await rows())[0]).toBe(2);
  });

  it("says DATA_LOSS when stored bytes no longer match their hash, and never gives them silently", async () => {
    const reference = referenceOf(await put(randomBytes(2 * mib)));
    await database.db.query(
      "update payload_chunks set bytes = set_byte(bytes, 5, get_byte(bytes, 5) # 1) where no = 1",
    );
    await expect(get(reference)).rejects.toMatchObject({ reason: "PAYLOAD_CORRUPT" });
    await expect(getPayload(database.db, 1, reference)).rejects.toThrow("does not match its hash");
    await database.db.query("delete from payload_chunks where no = 1");
    await expect(get(reference)).rejects.toMatchObject({ reason: "PAYLOAD_CORRUPT" });
  });

  it.each(["", "x", "../../etc/passwd", "0".repeat(64), "a\u0000b"])("finds no payload %j", async (reference) => {
    const error = await get(reference).then(
      () => undefined,
      (failed: StatusError) => failed,
    );
    expect(error).toMatchObject({ reason: "PAYLOAD_NOT_FOUND" });
  });
});
