import { Client, Metadata, Server, ServerCredentials, type ServiceError, status } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { type ChannelConfig, createChannel, createClient, unaryCall } from "./client.js";
import type { Address } from "./setting-kinds.js";

const bytes = (value: Buffer): Buffer => value;
const path = "/test.v1.Test/Who";

const servers: Server[] = [];
const clients: Client[] = [];

/** A server that answers its name and the caller's authorization. */
async function serve(name: string, port = 0): Promise<Address> {
  const server = new Server();
  servers.push(server);
  server.register(
    path,
    (call: { metadata: Metadata }, callback: (error: null, response: Buffer) => void) => {
      if (call.metadata.get("hang").length > 0) return;
      callback(null, Buffer.from(`${name} ${call.metadata.get("authorization").join()}`));
    },
    bytes,
    bytes,
    "unary",
  );
  const bound = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, at) =>
      error ? reject(error) : resolve(at),
    ),
  );
  return { host: "127.0.0.1", port: bound };
}

function dial(config: ChannelConfig): (options?: Parameters<typeof unaryCall>[3]) => Promise<string> {
  const client = createClient(Client, config);
  clients.push(client);
  return async (options = {}) => {
    const answer = await unaryCall<Buffer, Buffer>(
      client,
      (request, metadata, callOptions, callback) =>
        client.makeUnaryRequest(
          path,
          bytes,
          bytes,
          request,
          metadata,
          callOptions,
          (error: ServiceError | null, response) => callback(error, response as Buffer),
        ),
      Buffer.from(""),
      { deadlineMs: 20_000, ...options },
    );
    return answer.toString();
  };
}

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
  for (const server of servers.splice(0)) server.forceShutdown();
});

describe("a client", () => {
  it("goes round several coordinators, and on with the living when one dies and when it is back", async () => {
    const first = await serve("first");
    const second = await serve("second");
    // One by name, one by address.
    const call = dial({ addresses: [{ host: "localhost", port: first.port }, second] });
    const seen = async (): Promise<string[]> => {
      const names = await Promise.all(Array.from({ length: 8 }, () => call().catch((error) => String(error.reason))));
      return [...new Set(names.map((name) => name.trim()))].sort();
    };
    await expect.poll(seen, { timeout: 20_000 }).toEqual(["first", "second"]);
    servers[0]!.forceShutdown();
    await expect.poll(seen, { timeout: 20_000 }).toEqual(["second"]);
    await serve("first", first.port);
    await expect.poll(seen, { timeout: 20_000 }).toEqual(["first", "second"]);
  });

  it("shows its token, unless the call brings one", async () => {
    const call = dial({ addresses: [await serve("s")], token: "secret-token" });
    expect(await call()).toBe("s Bearer secret-token");
    const metadata = new Metadata();
    metadata.set("authorization", "Bearer other");
    expect(await call({ metadata })).toBe("s Bearer other");
  });

  it("says UNAVAILABLE at once when nobody listens", async () => {
    const address = await serve("gone");
    servers.pop()?.forceShutdown();
    await expect(dial({ addresses: [address] })()).rejects.toMatchObject({
      code: status.UNAVAILABLE,
      reason: "COORDINATOR_UNAVAILABLE",
      retryable: true,
    });
  });

  it("gives up at its deadline, when it is aborted, and before it begins", async () => {
    const call = dial({ addresses: [await serve("slow")] });
    const metadata = new Metadata();
    metadata.set("hang", "1");
    await expect(call({ metadata, deadlineMs: 100 })).rejects.toMatchObject({ reason: "DEADLINE_EXCEEDED" });
    const abort = new AbortController();
    const given = call({ metadata, signal: abort.signal });
    setTimeout(() => abort.abort(), 20);
    await expect(given).rejects.toMatchObject({ reason: "CALL_CANCELLED" });
    await expect(call({ signal: AbortSignal.abort() })).rejects.toMatchObject({ reason: "CALL_CANCELLED" });
  });

  it("says that a name can't be resolved", async () => {
    const nowhere = { host: "does-not-exist.invalid", port: 1 };
    await expect(dial({ addresses: [nowhere, { ...nowhere, port: 2 }] })({ deadlineMs: 15_000 })).rejects.toMatchObject(
      {
        code: status.UNAVAILABLE,
      },
    );
    expect(() => createChannel({ addresses: [] })).toThrow("no address");
  });

  it("keeps no retry buffer for streams", () => {
    expect(
      createChannel({ addresses: [{ host: "h", port: 1 }] }, { streams: true }).options["grpc.enable_retries"],
    ).toBe(0);
  });
});
