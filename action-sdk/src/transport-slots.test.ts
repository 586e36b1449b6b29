/** The slots of a worker while its transports come and go. */
import type { LaneGrant, StartStep } from "@taskmesh/proto";
import type { StartDelivery } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { TransportSlots } from "./transport-slots.js";

const lane = (taskQueue: string, slots: number, consumer = taskQueue): LaneGrant => ({
  taskQueue,
  subject: consumer,
  consumer,
  slots,
  packMax: 1,
});

const delivery = (taskQueue: string): StartDelivery => ({
  taskQueue,
  start: {} as StartStep,
  redelivered: false,
  ack: () => {},
  release: () => {},
});

const slotsOf = (lanes: readonly LaneGrant[]): Record<string, number> =>
  Object.fromEntries(lanes.map(({ consumer, slots }) => [consumer, slots]));

describe("slots over a change of the transport", () => {
  const lanes = [lane("a", 3), lane("b", 2)];

  it("gives the first transport all, and nothing again while it is the only one", () => {
    const slots = new TransportSlots(() => expect.unreachable("no earlier transport filled a slot"));
    const counted = slots.begin();
    expect(slotsOf(slots.due(lanes))).toEqual({ a: 3, b: 2 });
    const taken = counted(delivery("a"));
    expect(slots.due(lanes)).toEqual([]);
    taken.release();
    expect(slots.due(lanes)).toEqual([]);
  });

  it("opens the next with the slots that are free, and gives it the others as attempts end, each once", () => {
    let freed = 0;
    const slots = new TransportSlots(() => {
      freed += 1;
    });
    const before = slots.begin();
    slots.due(lanes);
    const held = [delivery("a"), delivery("a"), delivery("b"), delivery("b")].map(before);
    slots.begin();
    expect(slotsOf(slots.due(lanes))).toEqual({ a: 1, b: 0 });
    held[0]!.release();
    held[0]!.release();
    expect([freed, slotsOf(slots.due(lanes))]).toEqual([1, { a: 1 }]);
    expect(slots.due(lanes)).toEqual([]);
    for (const one of held) one.release();
    expect([freed, slotsOf(slots.due(lanes))]).toEqual([4, { a: 1, b: 2 }]);
  });

  it("carries over what several transports brought, also one that could not be opened whole", () => {
    const slots = new TransportSlots(() => {});
    const first = slots.begin()(delivery("a"));
    slots.due(lanes);
    const second = slots.begin()(delivery("a"));
    slots.due(lanes);
    slots.begin();
    expect(slotsOf(slots.due(lanes))).toEqual({ a: 1, b: 2 });
    first.release();
    second.release();
    expect(slotsOf(slots.due(lanes))).toEqual({ a: 2 });
  });

  it("takes what is in hand off a queue once, however many lanes the queue has", () => {
    const slots = new TransportSlots(() => {});
    const counted = slots.begin();
    const held = [1, 2, 3].map(() => counted(delivery("a")));
    slots.begin();
    const two = [lane("a", 2, "a1"), lane("a", 2, "a2")];
    expect(slotsOf(slots.due(two))).toEqual({ a1: 0, a2: 1 });
    for (const one of held) one.release();
    expect(slotsOf(slots.due(two))).toEqual({ a1: 2, a2: 1 });
  });
});
