import { EmittedOutput } from "@taskmesh/proto";
import { MemoryBus } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import type { Database } from "../store/db.js";
import { type OutputFeed, openOutputFeed } from "./output-feed.js";

const run = { namespaceId: 1, runId: "run-1" };
/** Nothing in here travels by reference. */
const db = {} as Database;

function open(fromStart = true): {
  feed: OutputFeed;
  emit(attempt: number, number: number, text?: string): Promise<void>;
} {
  const bus = new MemoryBus();
  const carrier = bus.carrier("c1");
  const isOutput = (bytes: Uint8Array): boolean => bytes[0] !== "!".charCodeAt(0);
  const feed = openOutputFeed({ carrier, db }, { run, isOutput, fromStart });
  const work = bus.work({ namespaceId: 1, sessionId: "s1" });
  return {
    feed,
    emit: (attempt, number, text = `${attempt}.${number}`) => {
      const output = { data: { $case: "inline" as const, value: Buffer.from(text) } };
      const emitted = { runId: run.runId, attempt, lease: "L", number: BigInt(number), output };
      return work.emit(EmittedOutput.fromPartial(emitted));
    },
  };
}

/** All that has come. */
async function drain(feed: OutputFeed): Promise<string[]> {
  await new Promise((resolve) => setTimeout(resolve, 20));
  const over = AbortSignal.abort();
  const all: string[] = [];
  for (let next = await feed.next(over); next; next = await feed.next(over)) all.push(Buffer.from(next).toString());
  return all;
}

describe("the outputs of a run for one caller", () => {
  it("come in order and once, and a newer attempt begins again", async () => {
    const { feed, emit } = open();
    for (const [attempt, number] of [
      [1, 1],
      [1, 2],
      [1, 2],
      [2, 1],
      [1, 3],
      [2, 2],
    ] as const)
      await emit(attempt, number);
    expect(await drain(feed)).toEqual(["1.1", "1.2", "2.1", "2.2"]);
    expect(feed.missed).toBe(0);
  });

  it("are counted where they are missing", async () => {
    const { feed, emit } = open();
    for (const number of [2, 3, 7]) await emit(1, number);
    expect(await drain(feed)).toEqual(["1.2", "1.3", "1.7"]);
    expect(feed.missed).toBe(4);
  });

  it("of a run that had begun before are missed from the first one on that came", async () => {
    const { feed, emit } = open(false);
    for (const number of [5, 6, 8]) await emit(1, number);
    expect(await drain(feed)).toHaveLength(3);
    expect(feed.missed).toBe(1);
  });

  it("are messages of the contract, whoever sent them", async () => {
    const { feed, emit } = open();
    await emit(1, 1, "!no message");
    await emit(1, 2);
    expect(await drain(feed)).toEqual(["1.2"]);
    expect(feed.missed).toBe(1);
  });

  it("wait for a slow caller up to a bound", async () => {
    const { feed, emit } = open();
    const large = "x".repeat(1024 * 1024);
    for (let number = 1; number <= 20; number++) await emit(1, number, large);
    const taken = (await drain(feed)).length;
    expect(taken).toBeGreaterThan(10);
    expect(taken + feed.missed).toBe(20);
  });

  it("wake who waits for the next, and come no more once closed", async () => {
    const { feed, emit } = open();
    const over = new AbortController();
    const next = feed.next(over.signal);
    await emit(1, 1);
    expect(Buffer.from((await next)!).toString()).toBe("1.1");
    feed.close();
    await emit(1, 2);
    const last = feed.next(over.signal);
    over.abort();
    expect(await last).toBeUndefined();
  });
});
