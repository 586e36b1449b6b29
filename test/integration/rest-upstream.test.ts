/** The gateway between callers and coordinators that come and go. */
import { connect } from "node:net";
import type { Gateway } from "@taskmesh/gateway";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  echoMethod,
  type ScriptedCoordinator,
  ScriptedState,
  startScriptedCoordinator,
} from "../fixtures/rest-coordinator.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";

let state: ScriptedState;
let coordinators: ScriptedCoordinator[];
let gateway: Gateway;
beforeEach(async () => {
  state = new ScriptedState();
  coordinators = await Promise.all([startScriptedCoordinator(state), startScriptedCoordinator(state)]);
  gateway = await startTestGateway(coordinators.map(({ port }) => port));
});
afterEach(async () => {
  await gateway.stop();
  for (const coordinator of coordinators) coordinator.kill();
});

const call = (text: string) => ask(gateway, `/v1/${echoMethod}`, { body: { text } });

describe("several coordinators", () => {
  it("share the calls", async () => {
    await Promise.all(Array.from({ length: 40 }, (_, index) => call(`${index}`)));
    for (const { calls } of coordinators) expect(calls.get("startRun")).toBeGreaterThan(5);
  });

  it("may die and come back under load: every call is answered with its own result, by one run each", async () => {
    let isDone = false;
    const answers: string[] = [];
    const load = Array.from({ length: 10 }, async (_, worker) => {
      for (let n = 0; !isDone; n++) {
        const text = `${worker}-${n}`;
        const answer = await call(text);
        expect(answer.json).toEqual({ text, token: "" });
        answers.push(text);
      }
    });
    const answered = async (count: number) => {
      while (answers.length < count) await new Promise(setImmediate);
    };
    for (let round = 0; round < 4; round++) {
      const before = answers.length;
      coordinators[round % 2]!.kill();
      await answered(before + 50);
      coordinators[round % 2] = await startScriptedCoordinator(state, coordinators[round % 2]!.port);
      await answered(before + 100);
    }
    isDone = true;
    await Promise.all(load);
    // A start that was repeated carries one idempotency key, so it made one run.
    expect(state.runs.size).toBe(answers.length);
  });
});

describe("a coordinator that falls silent", () => {
  it("is passed over, without a second run", async () => {
    coordinators[0]!.silent = true;
    const options = (text: string) => ({ body: { text }, headers: { prefer: "wait=3" } });
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, index) => ask(gateway, `/v1/${echoMethod}`, options(`${index}`))),
    );
    expect(answers.map(({ json }) => json.text)).toEqual(answers.map((_, index) => `${index}`));
    expect(coordinators[0]!.calls.get("startRun")).toBeGreaterThan(0);
    expect(state.runs.size).toBe(8);
  });
});

describe("the gateway's own credential", () => {
  it("is shown to coordinators, and the caller's is not", async () => {
    const addresses = [{ host: "127.0.0.1", port: coordinators[0]!.port }];
    const guarded = await startTestGateway([], { coordinator: { addresses, token: "for-coordinators-only" } });
    await ask(guarded, `/v1/${echoMethod}`, { body: {}, headers: { authorization: "Bearer of-the-caller" } });
    await guarded.stop();
    expect(coordinators[0]!.metadata["authorization"]).toBe("Bearer for-coordinators-only");
  });
});

describe("without a coordinator", () => {
  it("is alive but not ready, answers 503 with Retry-After, and serves again as soon as one is back", async () => {
    expect((await ask(gateway, "/readyz")).status).toBe(200);
    for (const { kill } of coordinators) kill();
    expect((await ask(gateway, "/healthz")).status).toBe(200);
    const [ready, answer] = await Promise.all([ask(gateway, "/readyz"), call("x")]);
    expect(ready.status).toBe(503);
    expect(answer).toMatchObject({ status: 503, json: { reason: "COORDINATOR_UNAVAILABLE", retryAfterMs: 1_000 } });
    expect(answer.headers["retry-after"]).toBe("1");
    expect(answer.text).not.toContain("127.0.0.1");
    coordinators[1] = await startScriptedCoordinator(state, coordinators[1]!.port);
    expect((await call("back")).json).toEqual({ text: "back", token: "" });
  });

  it("tells waiting callers their run when it stops, and does not make them wait", async () => {
    state.autoEnd = false;
    const waiting = call("x");
    while (state.runs.size === 0) await new Promise(setImmediate);
    await gateway.stop();
    expect(await waiting).toMatchObject({ status: 202, json: { runId: [...state.runs.keys()][0] } });
  });
});

/** Sends bytes as they are and returns all that comes back. */
function raw(text: string): Promise<string> {
  const [host, port] = gateway.address.split(":");
  return new Promise((resolve, reject) => {
    const socket = connect({ host: host!, port: Number(port) }, () => socket.write(text));
    let answer = "";
    socket.setTimeout(20_000, () => socket.destroy(new Error("no answer")));
    socket.on("data", (chunk) => {
      answer += chunk.toString("latin1");
    });
    socket.once("error", reject);
    socket.once("close", () => resolve(answer));
  });
}

describe("what is hardly HTTP", () => {
  const head = `POST /v1/${echoMethod} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n`;
  it.each([
    ["noise", "\u0016\u0003\u0001\u0002\u0000 noise\r\n\r\n", "400"],
    ["two lengths at once", `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`, "400"],
    ["a length that is none", `${head}Content-Length: 2x\r\n\r\n{}`, "400"],
    ["headers of 100 kB", `${head}X: ${"x".repeat(100_000)}\r\n\r\n`, "431"],
  ])("answers %s with a problem document and hangs up", async (_, text, status) => {
    const answer = await raw(text);
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(answer).toContain("application/problem+json");
    expect((await call("still here")).status).toBe(200);
  });

  it("gives up on headers that never end", async () => {
    expect(await raw("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")).toMatch(/^HTTP\/1.1 408 /);
  }, 60_000);
});
