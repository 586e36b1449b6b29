/** What reaches waiting steps over REST: signals, and the answers of services outside to callbacks. */
import { builtinActions, builtinConfig, builtinDescriptors } from "@taskmesh/actions";
import type { Gateway } from "@taskmesh/gateway";
import { RunStatus } from "@taskmesh/proto";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { chainOfGuide } from "../fixtures/guide.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { type OutsideService, startOutsideService } from "../fixtures/outside-service.js";
import { freePort } from "../fixtures/ports.js";
import { faultsSeenByPrism } from "../fixtures/prism.js";
import { ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";

const within = { timeout: 20_000, interval: 50 };

describe.each(["servers", "embedded"] as const)("waiting steps over REST, on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  let service: OutsideService;
  const authorized = { authorization: "Bearer a-token-that-services-outside-do-not-have" };

  beforeAll(async () => {
    const httpPort = await freePort();
    mesh = await startInProcessMesh({ on, env: { TASKMESH_PUBLIC_URL: `http://127.0.0.1:${httpPort}/` } });
    const tokens = { tokens: ["a-token-that-services-outside-do-not-have"] };
    gateway = await startTestGateway([mesh.address.port], {
      httpAddress: { host: "127.0.0.1", port: httpPort },
      tokens,
    });
    await holdToDocument(gateway, authorized);
    const actions = builtinActions(builtinConfig({ TASKMESH_HTTP_ALLOW: "127.0.0.1" }));
    await mesh.serve(actions, { descriptors: builtinDescriptors });
    service = await startOutsideService();
    await mesh.putChain(chainOfGuide("waiting.md", "Translate"));
    await mesh.putChain(chainOfGuide("waiting.md", "Deliver"));
  }, 60_000);
  afterAll(async () => {
    service.close();
    await gateway.stop();
    await mesh.stop();
  }, 30_000);

  const start = (rpc: string, input: object): Promise<string> => {
    const value = JSON.stringify({ ...input, service: service.url });
    return mesh.start({ method: `acme.translate.v1.Translations/${rpc}`, input: { $case: "json", value } });
  };
  const requestOf = (text: string) =>
    vi.waitFor(() => {
      const request = service.asked.find((one) => one.text === text);
      expect(request).toBeDefined();
      return request!;
    }, within);
  const handOver = async (text: string): Promise<{ runId: string; path: string }> => {
    const runId = await start("Translate", { text });
    const found = await requestOf(text);
    expect(found.answer_to).toMatch(new RegExp(`^http://${gateway.address}/api/v1/callbacks/${runId}\\.`));
    return { runId, path: new URL(found.answer_to).pathname };
  };

  it("a service outside answers by the URL that it was handed, once, without another credential", async () => {
    const { runId, path } = await handOver("hello");
    const post = (body: unknown, at = path) => ask(gateway, at, { body });
    const refusals = [
      await post({ text: 5 }),
      await post({ text: "bonjour", mood: "good" }),
      await post("{"),
      await post({ text: "guessed" }, `${path.slice(0, -1)}${path.endsWith("A") ? "B" : "A"}`),
      await post({ text: "guessed" }, "/api/v1/callbacks/nothing"),
    ];
    expect(refusals.map(({ status, json }) => [status, json.reason])).toEqual([
      [400, "INPUT_INVALID"],
      [400, "INPUT_INVALID"],
      [400, "JSON_MALFORMED"],
      [404, "CALLBACK_UNKNOWN"],
      [404, "CALLBACK_UNKNOWN"],
    ]);
    expect(await post({ text: "bonjour" }, `${path}?from=service`)).toMatchObject({
      status: 200,
      json: { accepted: true },
    });
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(await post({ text: "again" })).toMatchObject({ status: 409, json: { reason: "CALLBACK_USED" } });
    const result = await ask(gateway, `/api/v1/runs/${runId}/result`, { headers: authorized });
    expect(result.json).toMatchObject({ output: { text: "bonjour" } });
  }, 60_000);

  it("each item of a fan-out has a URL of its own, and the answers come in any order", async () => {
    await mesh.putChain(chainOfGuide("fan-out.md", "TranslateAll"));
    const texts = ["one", "two", "three"];
    const runId = await start("TranslateAll", { texts });
    const requests = await Promise.all(texts.map(requestOf));
    expect(new Set(requests.map((one) => one.answer_to)).size).toBe(3);
    for (const { text, answer_to: url } of requests.toReversed())
      expect((await ask(gateway, new URL(url).pathname, { body: { text: `${text}!` } })).status).toBe(200);
    expect((await mesh.result(runId)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    const result = await ask(gateway, `/api/v1/runs/${runId}/result`, { headers: authorized });
    expect(result.json).toMatchObject({ output: { texts: ["one!", "two!", "three!"] } });
  }, 60_000);

  it("an answer that comes too late is told so", async () => {
    const { runId, path } = await handOver("too late");
    const cancelled = await ask(gateway, `/api/v1/runs/${runId}/cancel`, { method: "POST", headers: authorized });
    expect(cancelled.status).toBe(200);
    const late = await ask(gateway, path, { body: { text: "trop tard" } });
    expect(late).toMatchObject({ status: 409, json: { reason: "CALLBACK_CLOSED" } });
  }, 60_000);

  it("signals are JSON in place, in a request of their own or beside a start", async () => {
    const body = { method: "acme.orders.v1.Orders/Deliver", signal: { name: "picked_up", value: { courier: "Ada" } } };
    const started = await ask(gateway, "/api/v1/runs", { body, headers: authorized });
    expect(started.status).toBe(201);
    const path = `/api/v1/runs/${started.json.runId}/signals`;
    const send = (signal: unknown) => ask(gateway, path, { body: signal, headers: authorized });
    expect(await send({ name: "rating", value: { stars: "x" } })).toMatchObject({ status: 400 });
    expect(await send({ name: "ratin" })).toMatchObject({ status: 404, json: { reason: "SIGNAL_UNKNOWN" } });
    expect(await send({ name: "rating", value: {}, json: "{}" })).toMatchObject({ status: 400 });
    expect(await ask(gateway, path, { body: { name: "rating" } })).toMatchObject({ status: 401 });
    const taken = await send({ name: "rating", id: "r-1", value: { stars: 5 } });
    expect(taken).toMatchObject({ status: 200, json: { delivered: true, existing: false } });
    const result = await ask(gateway, `/api/v1/runs/${started.json.runId}/result?wait=20s`, { headers: authorized });
    expect(result.json).toMatchObject({ output: { courier: "Ada", rating: 5 } });
    expect(await send({ name: "rating", value: {} })).toMatchObject({ status: 409, json: { reason: "RUN_ENDED" } });
  }, 60_000);

  it("a validating proxy finds nothing wrong with the answers above", async () => {
    expect(await faultsSeenByPrism(gateway)).toEqual([]);
  }, 60_000);
});
