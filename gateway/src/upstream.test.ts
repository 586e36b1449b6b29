import { Server, ServerCredentials, type sendUnaryData } from "@grpc/grpc-js";
import { createLogger } from "@taskmesh/runtime";
import { afterEach, describe, expect, it } from "vitest";
import { freePorts } from "../../test/fixtures/ports.js";
import { type RpcMethod, Upstream } from "./upstream.js";

const bytes = (value: Buffer): Buffer => value;
const method: RpcMethod<Buffer, Buffer> = {
  path: "/test.v1.Calls/Wait",
  requestSerialize: bytes,
  responseDeserialize: bytes,
};
const service = {
  wait: { ...method, requestStream: false, responseStream: false, requestDeserialize: bytes, responseSerialize: bytes },
} as const;

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.forceShutdown();
});

/** A coordinator as far as one call goes. */
async function serve(port: number, answer: (reply: sendUnaryData<Buffer>) => void): Promise<Server> {
  const server = new Server();
  server.addService(service, { wait: (_call: unknown, reply: sendUnaryData<Buffer>) => answer(reply) });
  await new Promise<void>((resolve, reject) => {
    const address = `127.0.0.1:${port}`;
    server.bindAsync(address, ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve()));
  });
  servers.push(server);
  return server;
}

describe("a call whose coordinator dies while it waits there", () => {
  it("has all of its patience for another one, however long it was held before", async () => {
    const [first, second] = (await freePorts(2)) as [number, number];
    const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
    const dying = await serve(first, () => {
      setTimeout(() => dying.forceShutdown(), 3_000);
    });
    const addresses = [first, second].map((port) => ({ host: "127.0.0.1", port }));
    const config = { addresses, patienceMs: 4_000 };
    const upstream = new Upstream(config, createLogger("test", { level: "silent" }));
    const options = { signal: new AbortController().signal, tryMs: 20_000 };
    const answered = upstream.call(method, Buffer.from("x"), options);
    answered.catch(() => {});
    await pause(5_000);
    await serve(second, (reply) => reply(null, Buffer.from("here")));
    expect((await answered).toString()).toBe("here");
    upstream.close();
  }, 30_000);
});
