/** The wire form of server-sent events, read from a stream of bytes. */

export interface ServerEvent {
  /** Cursor to continue behind, where the event has one. */
  id?: string;
  /** "message" unless the stream names it. */
  event: string;
  data: string;
}

/** Longest single event; the mesh sends far shorter ones. */
const eventCharactersMax = 128 * 1024 * 1024;

/**
 * The events of a `text/event-stream`. Comments (keep-alives) are skipped; an event that the end of the stream cuts off is dropped,
 * so that a reader that continues behind the last whole event misses nothing.
 */
export async function* readServerEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent> {
  const decoder = new TextDecoder();
  let rest = "";
  let event: { id?: string; event: string; data: string[] } = { event: "message", data: [] };
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    if (rest.length > eventCharactersMax) throw new Error("an event is too long");
    // A lone CR at the end may be the first half of CRLF: it waits for the next chunk.
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (event.data.length > 0) yield { ...event, data: event.data.join("\n") };
        event = { event: "message", data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      if (colon === 0) continue;
      const name = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (name === "data") event.data.push(value);
      else if (name === "event") event.event = value;
      else if (name === "id") event.id = value;
    }
  }
}
