import { describe, expect, it } from "vitest";
import { readServerEvents, type ServerEvent } from "./server-events.js";

async function read(text: string, size = text.length): Promise<ServerEvent[]> {
  const bytes = Buffer.from(text);
  async function* chunks() {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  }
  const events: ServerEvent[] = [];
  for await (const event of readServerEvents(chunks())) events.push(event);
  return events;
}

describe("server-sent events", () => {
  const stream = ': hello\n\nid: 1\nevent: run\ndata: {"a":\ndata: "ü"}\n\n:\r\ndata:x\r\n\r\ndata: cut';

  it("reads ids, names and joined data, and skips comments and an event that the end cuts off", async () => {
    expect(await read(stream)).toEqual([
      { id: "1", event: "run", data: '{"a":\n"ü"}' },
      { event: "message", data: "x" },
    ]);
  });

  it.each([1, 2, 3, 5, 7])("reads the same whatever the chunks, here of %i bytes", async (size) => {
    expect(await read(stream, size)).toEqual(await read(stream));
  });
});
