import { type GetPayloadResponse, PayloadServiceService } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { defineStream } from "./define.js";
import { fail } from "./errors.js";
import { runAction } from "./testing.js";

const { getPayload } = PayloadServiceService;
const input = { namespace: "", reference: "abc" };
const chunk = (text: string): GetPayloadResponse => ({ chunk: Buffer.from(text) });
const texts = (chunks: readonly GetPayloadResponse[]): string[] => chunks.map((one) => one.chunk.toString());

describe("a handler of an rpc that returns a stream", () => {
  it("emits what it yields, and the last of it is the result", async () => {
    const spell = defineStream(getPayload, async function* ({ reference }) {
      for (const letter of reference) yield { chunk: Buffer.from(letter) };
    });
    const { output, outputs } = await runAction(spell, input);
    expect(texts(outputs)).toEqual(["a", "b", "c"]);
    expect(output).toEqual(chunk("c"));
  });

  it("may return its result, which is not emitted", async () => {
    const spell = defineStream(getPayload, async function* () {
      yield { chunk: Buffer.from("part") };
      return { chunk: Buffer.from("whole") };
    });
    const { output, outputs } = await runAction(spell, input);
    expect(texts(outputs)).toEqual(["part"]);
    expect(output).toEqual(chunk("whole"));
  });

  it("fails after what it has emitted, as any handler does", async () => {
    const spell = defineStream(getPayload, async function* () {
      yield { chunk: Buffer.from("a") };
      throw fail.final("OUT_OF_LETTERS", "no more");
    });
    const { outputs, failure } = await runAction(spell, input);
    expect(texts(outputs)).toEqual(["a"]);
    expect(failure).toMatchObject({ reason: "OUT_OF_LETTERS", retryable: false });
  });

  it("has no result without an output, and none that is no message", async () => {
    const none = defineStream(getPayload, async function* () {});
    expect((await runAction(none, input)).failure).toMatchObject({ reason: "OUTPUT_INVALID" });
    let closed = false;
    const wrong = defineStream(getPayload, async function* () {
      try {
        yield 7;
      } finally {
        closed = true;
      }
    } as never);
    expect((await runAction(wrong, input)).failure).toMatchObject({ reason: "OUTPUT_INVALID" });
    expect(closed).toBe(true);
    const plain = defineStream(getPayload, (() => chunk("a")) as never);
    expect((await runAction(plain, input)).failure?.message).toMatch(/write `async function\*`/);
  });

  it("is ended where it stands when its run is cancelled", async () => {
    const cancel = new AbortController();
    let closed = false;
    const spell = defineStream(getPayload, async function* () {
      try {
        for (;;) {
          yield { chunk: Buffer.from("a") };
          cancel.abort();
        }
      } finally {
        closed = true;
      }
    });
    const { cancelled, outputs } = await runAction(spell, input, { signal: cancel.signal });
    expect(cancelled).toBeDefined();
    expect(texts(outputs)).toEqual(["a"]);
    expect(closed).toBe(true);
  });
});
