import { get, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import Fastify, { type FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { EventStream } from "./event-stream.js";

let app: FastifyInstance;
let stopping: AbortController;
let stream: EventStream;
let response: IncomingMessage;

beforeEach(async () => {
  // Only the timers of the stream are made by hand: sockets use those of the platform.
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
  stopping = new AbortController();
  app = Fastify();
  app.get("/", (_request, reply) => {
    stream = new EventStream(reply.header("x-kept", "yes"), stopping.signal);
  });
  await app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = app.server.address() as AddressInfo;
  response = await new Promise((resolve) => get({ host: "127.0.0.1", port, agent: false }, resolve));
});
afterEach(async () => {
  response.destroy();
  stream.end();
  vi.useRealTimers();
  await app.close();
});

/** Reads until the text has `part`. */
async function readUntil(part: string): Promise<string> {
  let text = "";
  for await (const chunk of response.iterator({ destroyOnReturn: false })) {
    text += String(chunk);
    if (text.includes(part)) break;
  }
  return text;
}

describe("event stream", () => {
  it("begins with its headers, those of the reply included, and a pause for reconnecting", async () => {
    expect(await readUntil("\n\n")).toBe("retry: 1000\n\n");
    expect(response.headers).toMatchObject({
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store, no-transform",
      "x-accel-buffering": "no",
      "x-kept": "yes",
    });
  });

  it("writes an event as one line of data, whatever is in it", async () => {
    await stream.send("7", { message: "two\nlines\r\nand\n\ndata: more" });
    const text = await readUntil("more");
    expect(text).toContain('\n\nid: 7\ndata: {"message":"two\\nlines\\r\\nand\\n\\ndata: more"}');
  });

  it("says every 15 s that it is there", async () => {
    await readUntil("retry");
    vi.advanceTimersByTime(14_999);
    await stream.send("1", {});
    vi.advanceTimersByTime(1);
    expect(await readUntil(": alive")).toMatch(/id: 1\ndata: \{\}\n\n: alive\n\n$/);
  });

  it("drops a reader that takes nothing for a minute, and no earlier", async () => {
    response.pause();
    const large = { text: "x".repeat(4 * 1024 * 1024) };
    let isStuck = false;
    const sending = (async () => {
      while (!stream.closed.aborted) {
        const sent = stream.send("1", large).then(() => "sent");
        const turn = new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
        isStuck = (await Promise.race([sent, turn])) !== "sent";
        if (isStuck) await sent;
      }
    })();
    await vi.waitUntil(() => isStuck && vi.getTimerCount() > 1, { timeout: 10_000 });
    vi.advanceTimersByTime(59_000);
    expect(stream.closed.aborted).toBe(false);
    vi.advanceTimersByTime(1_000);
    await sending;
    expect(stream.closed.aborted).toBe(true);
  });

  it("is closed when the reader leaves, and when the gateway stops", async () => {
    const closed = new Promise((resolve) => stream.closed.addEventListener("abort", resolve));
    response.destroy();
    await closed;
    await stream.send("1", {});
    stopping.abort();
    expect(stream.closed.aborted).toBe(true);
  });
});
