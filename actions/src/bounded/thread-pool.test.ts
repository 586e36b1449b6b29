import { afterEach, describe, expect, it } from "vitest";
import { createThreadPool, type ThreadPool } from "./thread-pool.js";

const never = new AbortController().signal;
/** Takes minutes: each of the matches looks for a c up to the end of the text. */
const endless = {
  text: "ab".repeat(2_000_000),
  pattern: "a[ab]*c|a",
  flags: "",
  mode: 1,
  replacement: "",
  limit: 100_000,
};
const quick = { text: "[1,2]", expression: "[1]" };

describe("the thread pool", () => {
  let pool: ThreadPool | undefined;
  afterEach(() => pool?.close());

  it("answers many tasks at once, each with its own answer", async () => {
    pool = createThreadPool();
    const answers = Array.from({ length: 200 }, (_, index) =>
      pool!.run("queryJson", { text: `[${index}]`, expression: "[0]" }, never),
    );
    expect((await Promise.all(answers)).map(({ result }) => result)).toEqual(
      Array.from({ length: 200 }, (_, index) => index),
    );
  });

  it("ends a task with its time, and what waits behind it goes on", async () => {
    pool = createThreadPool({ timeoutMs: 1_000 });
    const slow = Array.from({ length: 4 }, () => pool!.run("applyRegex", endless, never));
    const behind = pool.run("queryJson", quick, never);
    for (const outcome of await Promise.allSettled(slow)) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { reason: "LIMIT_EXCEEDED", retryable: false } });
    }
    expect(await behind).toEqual({ result: 2, json: "2" });
  });

  it("ends a task that is called off, under way or waiting", async () => {
    pool = createThreadPool();
    const stop = new AbortController();
    const tasks = Array.from({ length: 10 }, () => pool!.run("applyRegex", endless, stop.signal));
    const reason = new Error("called off");
    stop.abort(reason);
    for (const outcome of await Promise.allSettled(tasks)) expect(outcome).toEqual({ status: "rejected", reason });
    await expect(pool.run("queryJson", quick, stop.signal)).rejects.toBe(reason);
    expect(await pool.run("queryJson", quick, never)).toMatchObject({ result: 2 });
  });

  it("ends a task that needs more memory than it may have, and its thread alone", async () => {
    pool = createThreadPool({ heapMb: 64 });
    const text = JSON.stringify(Array.from({ length: 2_000_000 }, (_, index) => ({ index })));
    await expect(pool.run("queryJson", { text, expression: "[*].[@,@]" }, never)).rejects.toMatchObject({
      reason: "LIMIT_EXCEEDED",
    });
    expect(await pool.run("queryJson", quick, never)).toMatchObject({ result: 2 });
  });

  it("fails tasks under way when it is closed, and works again afterwards", async () => {
    pool = createThreadPool();
    const task = pool.run("applyRegex", endless, never);
    const outcome = expect(task).rejects.toMatchObject({ reason: "THREAD_ENDED", retryable: true });
    await pool.close();
    await outcome;
    expect(await pool.run("queryJson", quick, never)).toMatchObject({ result: 2 });
  });
});
