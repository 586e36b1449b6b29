/** One stream of events, as server-sent events or as lines of JSON: its framing, heartbeats, backpressure and end. */
import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { FastifyReply } from "fastify";
import type { Problem } from "./problem.js";

/** Proxies drop connections that are silent for longer than 30 to 60 s. */
const HEARTBEAT_MS = 15_000;
/** A reader whose connection takes nothing for this long is dropped; it can come back with Last-Event-ID. */
const STALL_MS = 60_000;
/** What a browser waits before it reconnects. */
const RECONNECT_MS = 1_000;

/** How a stream is written. */
export type StreamForm = "events" | "lines";

const mediaTypes: Record<StreamForm, string> = {
  events: "text/event-stream; charset=utf-8",
  lines: "application/x-ndjson; charset=utf-8",
};

export class EventStream {
  /** Aborts when the reader has gone, was dropped, or the gateway stops. */
  readonly closed: AbortSignal;
  private readonly gone = new AbortController();
  private readonly raw: FastifyReply["raw"];
  private readonly heartbeat: NodeJS.Timeout;
  constructor(
    reply: FastifyReply,
    private readonly stopping: AbortSignal,
    private readonly form: StreamForm = "events",
  ) {
    this.closed = this.gone.signal;
    const { raw } = reply;
    this.raw = raw;
    reply.hijack();
    raw.on("close", this.leave);
    // A write to a connection that is just breaking reports here; "close" follows.
    raw.on("error", this.leave);
    stopping.addEventListener("abort", this.leave);
    if (raw.destroyed || raw.writableEnded || stopping.aborted) this.leave();
    for (const [name, value] of Object.entries(reply.getHeaders())) {
      if (value !== undefined) raw.setHeader(name, value);
    }
    raw.writeHead(200, {
      "content-type": mediaTypes[form],
      "cache-control": "no-store, no-transform",
      connection: "keep-alive",
      // nginx would hold events back to fill its buffer.
      "x-accel-buffering": "no",
    });
    if (form === "events") raw.write(`retry: ${RECONNECT_MS}\n\n`);
    this.heartbeat = setInterval(() => {
      // An empty line is what readers of lines skip.
      if (!raw.writableNeedDrain) raw.write(form === "events" ? ": alive\n\n" : "\n");
    }, HEARTBEAT_MS);
    this.heartbeat.unref();
  }

  private readonly leave = () => this.gone.abort();

  /** Sends one event and waits until the connection has taken it. */
  async send(id: string, event: JsonObject): Promise<void> {
    // JSON.stringify writes no line breaks, so an event is one line of data.
    await this.write(`id: ${id}\ndata: ${JSON.stringify(event)}\n\n`);
  }

  /** Sends what handlers reported: an event of its own name and without an id, since it is not in the history. */
  async sendProgress(progress: JsonObject): Promise<void> {
    await this.write(`event: progress\ndata: ${JSON.stringify(progress)}\n\n`);
  }

  /** Sends something under a name: an event of that name, or a line with one field of that name. */
  async sendNamed(name: string, value: JsonValue): Promise<void> {
    const line = this.form === "lines";
    await this.write(
      line ? `${JSON.stringify({ [name]: value })}\n` : `event: ${name}\ndata: ${JSON.stringify(value)}\n\n`,
    );
  }

  /** Says why the stream ends although the run goes on. */
  async sendProblem(problem: Problem): Promise<void> {
    await this.write(`event: problem\ndata: ${JSON.stringify(problem)}\n\n`);
  }

  end(): void {
    clearInterval(this.heartbeat);
    this.stopping.removeEventListener("abort", this.leave);
    if (!this.raw.writableEnded) this.raw.end();
  }

  private async write(text: string): Promise<void> {
    if (this.closed.aborted || this.raw.write(text)) return;
    await new Promise<void>((resolve) => {
      const finish = () => {
        clearTimeout(timer);
        this.raw.off("drain", finish);
        this.closed.removeEventListener("abort", finish);
        resolve();
      };
      const timer = setTimeout(() => {
        this.raw.destroy();
        finish();
      }, STALL_MS);
      this.raw.on("drain", finish);
      this.closed.addEventListener("abort", finish);
    });
  }
}
