/** What a pull does when the server falls silent, against a server that a test directs. */
import { LaneGrant } from "@taskmesh/proto";
import { afterEach, describe, expect, it } from "vitest";
import { NatsStandIn } from "../../../test/fixtures/nats-stand-in.js";
import { waitFor } from "../../../test/fixtures/process.js";
import { encodeStart } from "../../../test/fixtures/transport-mesh.js";
import { openJetStreamWork } from "./jetstream-work.js";
import { encodePack } from "./pack-bytes.js";
import type { StartDelivery } from "./transport.js";

const cleanups: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function pulling(): Promise<{ server: NatsStandIn; starts: StartDelivery[]; drain(): Promise<void> }> {
  const server = await NatsStandIn.open();
  cleanups.push(() => server.close());
  const work = openJetStreamWork({
    servers: [server.url],
    userJwt: "",
    userSeed: "",
    inboxPrefix: "",
    startStream: "TASKMESH_START",
    donePrefix: "done.1",
    outputPrefix: "",
    probeSubject: "probe.1.worker",
  });
  cleanups.push(() => work.close());
  const starts: StartDelivery[] = [];
  const lane = LaneGrant.fromPartial({ taskQueue: "default", consumer: "lane", subject: "start.1.1.1", slots: 1 });
  await work.open([lane], { onStart: (start) => starts.push(start), onProbe: () => {}, onClosed: () => {} });
  await waitFor("the first request", () => server.inbox !== undefined);
  return { server, starts, drain: () => work.drain() };
}

const start = (runId: string): Uint8Array => encodePack([encodeStart({ runId, lease: runId })]);

describe("a pull", () => {
  it("takes what was on its way when it gave the server up for silent, and asks for no more than it has room for", async () => {
    const { server, starts } = await pulling();
    const first = server.inbox;
    server.onLeave = (inbox) => {
      if (inbox === first) server.deliver(inbox, start("late"));
    };
    await waitFor("the late start", () => starts.length === 1, 20_000);
    expect(starts[0]).toMatchObject({ start: { runId: "late" }, redelivered: false });
    expect(server.inbox).toBe(first);
    starts[0]!.ack();
    await waitFor("its ack", () => server.acks.includes("+ACK"));
    starts[0]!.release();
    await waitFor("the next request", () => server.inbox !== first);
  }, 40_000);

  it("keeps a start that lasts without an ack from coming again, until it is acked", async () => {
    const { server, starts } = await pulling();
    server.deliver(server.inbox!, start("long"));
    await waitFor("two words of it", () => server.acks.length === 2, 20_000);
    expect(server.acks).toEqual(["+WPI", "+WPI"]);
    starts[0]!.ack();
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    expect(server.acks).toEqual(["+WPI", "+WPI", "+ACK"]);
  }, 40_000);

  it("acks what it holds although it drains while it looks at its consumer", async () => {
    const { server, starts, drain } = await pulling();
    server.deliver(server.inbox!, start("held"));
    await waitFor("the start", () => starts.length === 1);
    const first = server.inbox;
    starts[0]!.release();
    await waitFor("the next request", () => server.requests === 2);
    let left = false;
    server.onLeave = (inbox) => {
      left ||= inbox === first;
    };
    server.informs = false;
    await waitFor("the look", () => left, 20_000);
    await drain();
    starts[0]!.ack();
    server.informs = true;
    await waitFor("the ack", () => server.acks.includes("+ACK"), 20_000);
  }, 60_000);

  it("takes what was on its way when it drains", async () => {
    const { server, starts, drain } = await pulling();
    server.onLeave = (inbox) => server.deliver(inbox, start("late"));
    await drain();
    expect(starts).toMatchObject([{ start: { runId: "late" }, redelivered: false }]);
  });
});
