/** The REST API at real sockets, in front of a scripted coordinator. */
import type { Gateway } from "@taskmesh/gateway";
import { RunStatus } from "@taskmesh/proto";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { faultsSeenByPrism } from "../fixtures/prism.js";
import {
  echoMethod,
  outOfStock,
  type ScriptedCoordinator,
  ScriptedState,
  startScriptedCoordinator,
} from "../fixtures/rest-coordinator.js";
import { type Ask, ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";

let state: ScriptedState;
let coordinator: ScriptedCoordinator;
let gateway: Gateway;
beforeAll(async () => {
  state = new ScriptedState();
  coordinator = await startScriptedCoordinator(state);
  gateway = await startTestGateway([coordinator.port]);
  await holdToDocument(gateway);
});
afterAll(async () => {
  await gateway.stop();
  coordinator.kill();
});
afterEach(() => {
  state.failure = undefined;
  state.autoEnd = true;
});

const call = (body: unknown, headers: Record<string, string> = {}) =>
  ask(gateway, `/v1/${echoMethod}`, { body, headers, method: "POST" });
const echo = (text: string) => ({ method: echoMethod, input: { text } });

describe("POST /v1/{service}/{method}", () => {
  it("answers with the output and nothing else, and names the run in a header", async () => {
    const answer = await call({ text: "a b", password: "hunter2" });
    expect(answer.status).toBe(200);
    expect(answer.json).toEqual({ text: "a b", token: "hunter2" });
    expect(state.runs.has(String(answer.headers["taskmesh-run-id"]))).toBe(true);
  });

  it("takes no body as an input without fields", async () => {
    expect((await call(undefined)).json).toEqual({ text: "", token: "" });
  });

  it("answers 202 with the place of the run when asked not to wait", async () => {
    state.autoEnd = false;
    const answer = await call({ text: "later" }, { prefer: "respond-async" });
    expect(answer.status).toBe(202);
    expect(answer.headers.location).toBe(`/api/v1/runs/${answer.json.runId}?namespace=default`);
    const shown = await ask(gateway, String(answer.headers.location));
    expect(shown.json).toMatchObject({ run: { status: "RUN_STATUS_RUNNING" }, input: { text: "later" } });
  });

  it("answers 202 when the wait that was asked for is over", async () => {
    state.autoEnd = false;
    expect((await call({}, { prefer: "wait=1" })).status).toBe(202);
  });

  it("passes the idempotency key on and answers the same run again", async () => {
    const first = await call({ text: "once" }, { "idempotency-key": "k1" });
    const second = await call({ text: "once" }, { "idempotency-key": "k1" });
    expect(second.headers["taskmesh-run-id"]).toBe(first.headers["taskmesh-run-id"]);
    expect(second.json).toEqual(first.json);
  });

  it("says why a run failed, with the typed details of the action", async () => {
    state.failure = outOfStock("sock");
    const answer = await call({ text: "sock" });
    expect(answer.status).toBe(422);
    expect(answer.headers["content-type"]).toContain("application/problem+json");
    expect(answer.json).toMatchObject({
      type: "urn:taskmesh:error:RUN_FAILED",
      reason: "RUN_FAILED",
      detail: "OUT_OF_STOCK: no sock left",
      runId: answer.headers["taskmesh-run-id"],
      failure: {
        reason: "OUT_OF_STOCK",
        details: [{ "@type": "type.googleapis.com/shop.v1.OutOfStock", sku: "sock" }],
      },
    });
  });

  it.each([
    ["HANDLER_ERROR", 500],
    ["ATTEMPTS_LOST", 502],
    ["SCHEDULE_TO_START_TIMEOUT", 503],
    ["START_TO_CLOSE_TIMEOUT", 504],
  ])("maps a run that failed by %s inside a chain to %i", async (reason, status) => {
    const cause = { reason, message: "m", retryable: false, details: [], cause: undefined };
    state.failure = { reason, message: "step a: m", retryable: false, details: [], cause };
    expect((await call({})).status).toBe(status);
  });

  it("names every faulty field of the input", async () => {
    const answer = await call({ txt: "x", bigNumber: "many" });
    expect(answer.status).toBe(400);
    expect(answer.json).toMatchObject({
      reason: "INPUT_INVALID",
      errors: [
        { field: "txt", message: 'EchoRequest has no field "txt"; did you mean "text"?' },
        { field: "bigNumber", message: expect.stringContaining("expected an integer") },
      ],
    });
  });

  it("moves a large input and output by reference", async () => {
    const text = "x".repeat(20 * 1024 * 1024);
    const answer = await call({ text });
    expect(answer.status).toBe(200);
    expect(answer.json.text).toHaveLength(text.length);
    const { input } = state.runs.get(String(answer.headers["taskmesh-run-id"]))!;
    expect(input.data?.$case).toBe("reference");
    const shown = await ask(gateway, `/api/v1/runs/${answer.headers["taskmesh-run-id"]}`);
    expect(shown.json.input).toMatchObject({
      "@payload": { reference: expect.any(String), omitted: expect.any(String) },
    });
  });
});

describe("bad input", () => {
  const depth = (levels: number) => `{"anything":${"[".repeat(levels)}${"]".repeat(levels)}}`;
  const bodies: [name: string, body: string | Buffer, reason: string][] = [
    ["cut JSON", '{"text":"a"', "JSON_MALFORMED"],
    ["bytes that are not UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), "JSON_MALFORMED"],
    ["a key twice", '{"text":"a","text":"b"}', "JSON_MALFORMED"],
    ["a lone surrogate", '{"text":"\\ud800"}', "JSON_MALFORMED"],
    ["65 levels", depth(64), "JSON_MALFORMED"],
    ["500,000 levels", depth(500_000), "JSON_MALFORMED"],
    ["a list", "[]", "INPUT_INVALID"],
    ["__proto__", '{"__proto__":{"text":"x"}}', "INPUT_INVALID"],
    ["constructor", '{"constructor":{}}', "INPUT_INVALID"],
    ["an integer above 64 bits", '{"bigNumber":"99999999999999999999"}', "INPUT_INVALID"],
    ["an integer that JSON rounds", '{"bigNumber":9007199254740993}', "INPUT_INVALID"],
    ["an infinite number", '{"bigNumber":1e999}', "INPUT_INVALID"],
  ];
  it.each(bodies)("refuses %s", async (_, body, reason) => {
    const answer = await call(body);
    expect(answer.status).toBe(400);
    expect(answer.json).toMatchObject({ reason, status: 400, type: `urn:taskmesh:error:${reason}` });
  });

  it("takes NUL and every other character as data", async () => {
    const text = "\u0000\u001f\u2028\ud83d\ude00";
    expect((await call({ text })).json.text).toBe(text);
  });

  it("refuses a body over 64 MiB with 413, announced or not", async () => {
    const body = Buffer.alloc(65 * 1024 * 1024, 0x20);
    expect(await call(body)).toMatchObject({ status: 413, json: { reason: "PAYLOAD_TOO_LARGE" } });
  });

  it("refuses other content types with 415", async () => {
    const answer = await call("text=a", { "content-type": "application/x-www-form-urlencoded" });
    expect(answer).toMatchObject({ status: 415, json: { reason: "CONTENT_TYPE_UNSUPPORTED" } });
  });

  it.each(["a.>", "*", "a b", "é", "..", "%00", "a%2fb"])("refuses the name %j", async (name) => {
    const answer = await ask(gateway, `/v1/shop.v1.ShopActions/${encodeURIComponent(name)}`, { body: {} });
    expect(answer).toMatchObject({ status: 400, json: { reason: "ARGUMENT_INVALID", errors: [{ field: "method" }] } });
  });

  it("refuses a name of 10 kB, in the path and in the body", async () => {
    const long = "x".repeat(10_000);
    expect((await ask(gateway, `/v1/shop.v1.ShopActions/${long}`, { body: {} })).status).toBe(404);
    const answer = await ask(gateway, "/api/v1/runs", { body: { method: `shop.v1.ShopActions/${long}` } });
    expect(answer.json.reason).toBe("ARGUMENT_INVALID");
    expect(answer.text.length).toBeLessThan(1_000);
  });

  it("answers an unknown method with 404 and its name", async () => {
    const answer = await ask(gateway, "/v1/shop.v1.ShopActions/Steal", { body: {} });
    expect(answer).toMatchObject({ status: 404, json: { reason: "METHOD_NOT_FOUND" } });
    expect(answer.json.detail).toContain("shop.v1.ShopActions/Steal");
  });

  const requests: [name: string, path: string, options: Ask, status: number, reason: string][] = [
    ["an unknown route", "/api/v2/runs", {}, 404, "ROUTE_NOT_FOUND"],
    ["a wrong method", "/api/v1/runs", { method: "DELETE" }, 405, "HTTP_METHOD_NOT_ALLOWED"],
    ["a misspelt filter", "/api/v1/runs?sttaus=RUNNING", {}, 400, "ARGUMENT_INVALID"],
    ["an unknown status", "/api/v1/runs?status=RUNING", {}, 400, "ARGUMENT_INVALID"],
    ["a page of 1,001", "/api/v1/runs?page_size=1001", {}, 400, "ARGUMENT_INVALID"],
    ["an unknown run", "/api/v1/runs/0192-none", {}, 404, "RUN_NOT_FOUND"],
    ["a run id that can't be one", "/api/v1/runs/a%20b", {}, 404, "RUN_NOT_FOUND"],
    ["an unknown namespace", "/api/v1/runs?namespace=none", {}, 404, "NAMESPACE_NOT_FOUND"],
    ["a bad escape in the path", "/api/v1/runs/%zz", {}, 400, "ARGUMENT_INVALID"],
    ["the events of an unknown run", "/api/v1/runs/0192-none/events", {}, 404, "RUN_NOT_FOUND"],
    [
      "an unknown field of a start",
      "/api/v1/runs",
      { body: { method: echoMethod, inptu: {} } },
      400,
      "ARGUMENT_INVALID",
    ],
    ["an input in bytes", "/api/v1/runs", { body: { method: echoMethod, json: "{}" } }, 400, "ARGUMENT_INVALID"],
    ["a bad wait", "/api/v1/runs", { body: { method: echoMethod, wait: "soon" } }, 400, "ARGUMENT_INVALID"],
    ["a chain that is no chain", "/api/v1/chains", { body: { stepz: [] } }, 400, "CHAIN_INVALID"],
  ];
  it.each(requests)("answers %s with a problem document", async (_, path, options, status, reason) => {
    const answer = await ask(gateway, path, options);
    expect(answer.json).toMatchObject({ status, reason, title: expect.any(String), detail: expect.any(String) });
    expect(answer.status).toBe(status);
    expect(answer.headers["content-type"]).toContain("application/problem+json");
  });

  it("names the methods that a route takes", async () => {
    const answer = await ask(gateway, "/api/v1/runs", { method: "DELETE" });
    expect(answer.headers["allow"]?.split(", ").sort()).toEqual(["GET", "POST"]);
  });
});

describe("runs", () => {
  it("starts, shows, and gives the result", async () => {
    const started = await ask(gateway, "/api/v1/runs", {
      body: { ...echo("hi"), labels: { team: "a" }, priority: 5, timeout: "60s", idempotency_key: "runs-1" },
    });
    expect(started.status).toBe(201);
    expect(started.json).toEqual({ runId: expect.any(String), existing: false });
    const again = await ask(gateway, "/api/v1/runs", { body: { ...echo("hi"), idempotencyKey: "runs-1" } });
    expect(again).toMatchObject({ status: 200, json: { runId: started.json.runId, existing: true } });
    const { request } = state.runs.get(started.json.runId)!;
    expect(request).toMatchObject({ labels: { team: "a" }, priority: 5, timeout: { seconds: 60n } });
    const result = await ask(gateway, `/api/v1/runs/${started.json.runId}/result?wait=1s`);
    expect(result.json).toEqual({
      runId: started.json.runId,
      status: "RUN_STATUS_SUCCEEDED",
      output: { text: "hi", token: "" },
    });
  });

  it("waits for the result where the start asks for it", async () => {
    const { json } = await ask(gateway, "/api/v1/runs", { body: { ...echo("now"), wait: "5s" } });
    expect(json).toMatchObject({ status: "RUN_STATUS_SUCCEEDED", output: { text: "now" } });
  });

  it("masks sensitive fields for lookers-on", async () => {
    const { headers } = await call({ text: "t", password: "swordfish" });
    const shown = await ask(gateway, `/api/v1/runs/${headers["taskmesh-run-id"]}`);
    expect(shown.text).not.toContain("swordfish");
    expect(shown.json).toMatchObject({ input: { password: "***" }, output: { token: "***" } });
    const events = await ask(gateway, `/api/v1/runs/${headers["taskmesh-run-id"]}/events?after_seq=0`);
    expect(events.text).not.toContain("swordfish");
    expect(events.json).toMatchObject({ ended: true, nextAfterSeq: "2" });
  });

  it("pages through the list", async () => {
    const seen: string[] = [];
    let token = "";
    do {
      const { json } = await ask(gateway, `/api/v1/runs?page_size=3&page_token=${token}`);
      seen.push(...json.runs.map((run: { runId: string }) => run.runId));
      token = json.nextPageToken;
    } while (token !== "");
    expect(new Set(seen)).toEqual(new Set(state.runs.keys()));
    expect(seen).toHaveLength(state.runs.size);
  });

  it("cancels a run, and refuses to cancel one that has ended", async () => {
    state.autoEnd = false;
    const { json: run } = await ask(gateway, "/api/v1/runs", { body: echo("stop me") });
    const cancelled = await ask(gateway, `/api/v1/runs/${run.runId}/cancel`, { body: { reason: "no more" } });
    expect(cancelled.json.run).toMatchObject({ status: "RUN_STATUS_CANCELLED", failure: { message: "no more" } });
    const late = await ask(gateway, `/api/v1/runs/${run.runId}/cancel`, { method: "POST" });
    expect(late).toMatchObject({
      status: 409,
      json: { reason: "RUN_ENDED", details: [{ "@type": expect.stringContaining("RunEnded"), runId: run.runId }] },
    });
  });

  it("answers a broken run at once, for an operator has to act first", async () => {
    state.autoEnd = false;
    const waiting = call({});
    while (state.runs.size === 0 || [...state.runs.values()].at(-1)!.run.status !== RunStatus.RUN_STATUS_RUNNING) {
      await new Promise(setImmediate);
    }
    state.end([...state.runs.keys()].at(-1)!, RunStatus.RUN_STATUS_BROKEN);
    expect(await waiting).toMatchObject({ status: 409, json: { reason: "RUN_BROKEN" } });
  });
});

describe("a validating proxy", () => {
  it("finds nothing wrong with the answers above", async () => {
    expect(await faultsSeenByPrism(gateway)).toEqual([]);
  });
});
