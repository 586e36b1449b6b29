/** The REST API over a real coordinator with a database, a carrier in memory, and a worker of the SDK. */
import { type ActionContext, defineAction, fail, startWorker, type Worker } from "@taskmesh/action-sdk";
import { type Coordinator, createCoordinator, openPglite } from "@taskmesh/coordinator";
import type { Gateway } from "@taskmesh/gateway";
import { coordinatorConfig, createLogger, formatAddress, MemoryBus } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PageActionsService, pageDescriptors } from "../fixtures/page-actions.js";
import { faultsSeenByPrism, startPrism } from "../fixtures/prism.js";
import { ask, holdToDocument, readEvents, startTestGateway } from "../fixtures/rest-gateway.js";

const score = "acme.pages.v1.PageActions/Score";
const guarded = "acme.pages.v1.PageActions/Guarded";
const echo = "acme.pages.v1.PageActions/Echo";

let coordinator: Coordinator;
let gateway: Gateway;
let worker: Worker;
/** Texts that the handler was called with. */
const seen: string[] = [];
let release = () => {};

async function scoreText({ text }: { text: string }, context: ActionContext): Promise<{ words: number }> {
  seen.push(text);
  context.log.info("scoring", { length: text.length });
  if (text === "refuse") throw fail.final("TOO_BORING", "nothing to see");
  if (text === "hold") {
    await new Promise<void>((resolve) => {
      release = resolve;
      context.signal.addEventListener("abort", () => resolve());
    });
    context.signal.throwIfAborted();
  }
  return { words: text.split(/\s+/).filter((word) => word !== "").length };
}

beforeAll(async () => {
  const bus = new MemoryBus();
  const env = { TASKMESH_GRPC_ADDRESS: "127.0.0.1:0", TASKMESH_LOG_LEVEL: "warn" };
  coordinator = createCoordinator(coordinatorConfig(env, { embedded: true }), {
    database: await openPglite(),
    carrier: (id) => bus.carrier(id),
    exclusive: true,
  });
  await coordinator.start();
  gateway = await startTestGateway([coordinator.listener.address.port]);
  await holdToDocument(gateway);
  worker = await startWorker({
    descriptors: pageDescriptors,
    actions: [
      defineAction(PageActionsService.score, scoreText),
      defineAction(PageActionsService.guarded, scoreText),
      defineAction(PageActionsService.echo, async (blob) => blob),
    ],
    address: formatAddress(coordinator.listener.address),
    carrier: coordinator.carrier,
    handleSignals: false,
    quiet: true,
    logger: createLogger("worker", { level: "warn" }),
  });
});
afterAll(async () => {
  await worker?.stop();
  await gateway?.stop();
  await coordinator?.stop();
});

const call = (body: unknown, headers: Record<string, string> = {}) =>
  ask(gateway, `/v1/${score}`, { body, headers, method: "POST" });

const chain = `
contract:
  name: acme.pages.v1.Pages/Check
  input: { text: string }
  output: { words: int32 }
steps:
  - id: score
    call: ${score}
    input: { text: input.text }
  - id: again
    call: ${score}
    input: { text: "input.text + ' x'" }
    needs: [score]
output:
  words: steps.score.output.words + steps.again.output.words
`;

/** What every mesh has of its own. */
const launches = ["StartAction", "StartChain"].map((name) => `taskmesh.launch.v1.LaunchActions/${name}`);

describe("a mesh over REST", () => {
  it("is ready, and shows its actions and workers", async () => {
    expect((await ask(gateway, "/readyz")).status).toBe(200);
    const { json: list } = await ask(gateway, "/api/v1/actions");
    expect(list.actions.map(({ method }: { method: string }) => method).sort()).toEqual(
      [echo, guarded, score, ...launches].sort(),
    );
    const { json } = await ask(gateway, `/api/v1/actions/${score}`);
    expect(json).toMatchObject({
      action: { method: score, servable: true, inputType: "acme.pages.v1.ScoreRequest" },
      contract: {
        method: score,
        messages: { "acme.pages.v1.ScoreRequest": { fields: [{ name: "text", type: "string", number: 1 }] } },
      },
      workers: [{ assignable: true }],
      revisions: [{ number: 1 }],
    });
    expect(json.proto).toContain("rpc Score(acme.pages.v1.ScoreRequest) returns (acme.pages.v1.ScoreResponse);");
    expect((await ask(gateway, "/api/v1/workers")).json.workers).toHaveLength(1);
  });

  it("shows and changes how long the namespace keeps its runs", async () => {
    const path = "/api/v1/namespace";
    expect((await ask(gateway, path)).json.namespace).toMatchObject({ name: "default", retentionDays: 30 });
    const change = (body: unknown) => ask(gateway, path, { method: "PATCH", body });
    expect((await change({ retentionDays: 90 })).json.namespace).toMatchObject({ retentionDays: 90 });
    for (const [body, field] of [
      [{ retentionDays: 0 }, "retention_days"],
      [{ retentionDays: 36_501 }, "retention_days"],
      [{ retentionDays: "90" }, "retentionDays"],
      [{ retention: 90 }, "retention"],
      [[], ""],
    ] as const) {
      const answer = await change(body);
      expect([answer.status, answer.json.errors[0].field]).toEqual([400, field]);
    }
    expect((await ask(gateway, path)).json.namespace).toMatchObject({ retentionDays: 90 });
    expect((await ask(gateway, path, { headers: { "taskmesh-namespace": "none" } })).status).toBe(404);
  });

  it("answers a plain call with its output", async () => {
    const answer = await call({ text: "a b" });
    expect(answer.text).toBe('{"words":2}');
    const { json } = await ask(gateway, `/api/v1/runs/${answer.headers["taskmesh-run-id"]}`);
    expect(json).toMatchObject({
      run: { status: "RUN_STATUS_SUCCEEDED", method: score },
      input: { text: "a b" },
      output: { words: 2 },
      steps: [{ status: "STEP_STATUS_SUCCEEDED", attempts: [{ attempt: 1 }] }],
    });
  });

  it("runs once for 200 equal starts with one key at once, and refuses the key for another input", async () => {
    const text = "two hundred";
    const headers = { "idempotency-key": "two-hundred" };
    // A caller whose time is over asks again with its key: on a busy machine one call may take longer than the gateway waits.
    const insist = async (): ReturnType<typeof call> => {
      for (;;) {
        const answer = await call({ text }, headers);
        if (answer.status < 503) return answer;
      }
    };
    const answers = await Promise.all(Array.from({ length: 200 }, insist));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(answers.map((answer) => answer.headers["taskmesh-run-id"])).size).toBe(1);
    expect(seen.filter((one) => one === text)).toHaveLength(1);
    const other = await call({ text: "another" }, headers);
    const runId = answers[0]!.headers["taskmesh-run-id"];
    expect(other).toMatchObject({
      status: 409,
      json: {
        reason: "IDEMPOTENCY_KEY_REUSED",
        details: [{ "@type": "type.googleapis.com/taskmesh.v1.IdempotencyKeyReused", runId }],
      },
    });
  });

  it("names what is wrong with an input, before anything runs", async () => {
    const count = seen.length;
    expect(await call({ text: 5 })).toMatchObject({
      status: 400,
      json: { reason: "INPUT_INVALID", errors: [{ field: "text", message: "expected a string, found 5" }] },
    });
    const ruled = await ask(gateway, `/v1/${guarded}`, { body: { text: "a" } });
    expect(ruled.status).toBeGreaterThanOrEqual(400);
    expect(ruled.text).toContain("text");
    expect(seen).toHaveLength(count);
  });

  it("says how an action failed", async () => {
    const answer = await call({ text: "refuse" });
    expect(answer).toMatchObject({ status: 422, json: { reason: "RUN_FAILED", runId: expect.any(String) } });
    expect(answer.text).toContain("TOO_BORING");
  });

  it("applies a chain from YAML, shows it, and runs it", async () => {
    const yaml = { "content-type": "application/yaml" };
    const valid = await ask(gateway, "/api/v1/chains/validate", { body: chain, headers: yaml });
    expect(valid.json).toEqual({ problems: [], warnings: [] });
    const applied = await ask(gateway, "/api/v1/chains", { body: chain, headers: yaml });
    expect(applied).toMatchObject({ status: 201, json: { created: true, chain: { version: 1 } } });
    const again = await ask(gateway, "/api/v1/chains?require_live_workers=true", { body: chain, headers: yaml });
    expect(again).toMatchObject({ status: 200, json: { created: false } });
    const shown = await ask(gateway, String(applied.headers.location));
    expect(shown.json.chain.edges).toEqual([{ from: "score", to: "again" }]);
    // What is shown can be sent back as it is.
    const asJson = await ask(gateway, "/api/v1/chains", { body: shown.json.chain.spec });
    expect(asJson).toMatchObject({ status: 200, json: { created: false } });
    const list = await ask(gateway, "/api/v1/chains");
    const names = list.json.chains.map(({ name }: { name: string }) => name);
    // Beside the mesh's own.
    expect(names.filter((name: string) => !name.startsWith("taskmesh."))).toHaveLength(1);
    const answer = await ask(gateway, "/v1/acme.pages.v1.Pages/Check", { body: { text: "a b" } });
    expect(answer.json).toEqual({ words: 5 });
  });

  it("refuses a chain with its problems at their places", async () => {
    const broken = chain.replace("input.text }", "input.txt }");
    const yaml = { "content-type": "application/yaml" };
    const answer = await ask(gateway, "/api/v1/chains", { body: broken, headers: yaml });
    expect(answer).toMatchObject({ status: 400, json: { reason: "CHAIN_INVALID" } });
    const line = broken.split("\n").findIndex((text) => text.includes("input.txt")) + 1;
    expect(answer.json.errors[0]).toMatchObject({ field: "steps[0].input.text" });
    expect(answer.json.errors[0].message).toMatch(new RegExp(`^${line}:\\d+: .*txt`));
    const check = await ask(gateway, "/api/v1/chains/validate", { body: broken, headers: yaml });
    expect(check).toMatchObject({ status: 200, json: { problems: [{ line, stepId: "score" }] } });
  });

  it("streams a run's events to its end, and cancels", async () => {
    const { json: run } = await ask(gateway, "/api/v1/runs", { body: { method: score, input: { text: "hold" } } });
    const reader = await readEvents(gateway, `/api/v1/runs/${run.runId}/events`);
    await reader.until(1);
    expect(reader.events[0]!.data).toMatchObject({ kind: "EVENT_KIND_RUN_ACCEPTED", payload: { text: "hold" } });
    const cancelled = await ask(gateway, `/api/v1/runs/${run.runId}/cancel`, { body: { reason: "enough" } });
    expect(cancelled.status).toBe(200);
    release();
    await reader.ended;
    const seqs = reader.events.map(({ id }) => Number(id));
    expect(seqs).toEqual(seqs.map((_, index) => index + 1));
    expect(reader.events.at(-1)!.data).toMatchObject({
      kind: "EVENT_KIND_RUN_ENDED",
      runStatus: "RUN_STATUS_CANCELLED",
    });
    const again = await ask(gateway, `/api/v1/runs/${run.runId}/cancel`, { method: "POST" });
    expect(again.status).toBe(200);
  });

  it("filters and pages through runs", async () => {
    const start = (team: string) =>
      ask(gateway, "/api/v1/runs", { body: { method: score, labels: { team }, input: { text: "x" }, wait: "30s" } });
    const runs = await Promise.all(["a", "a", "b"].map(start));
    const [first] = runs;
    const get = async (query: string) => (await ask(gateway, `/api/v1/runs?${query}`)).json;
    expect((await get("label=team:a")).runs).toHaveLength(2);
    expect((await get("label=team%3Da&status=SUCCEEDED&page_size=1")).nextPageToken).not.toBe("");
    expect((await get(`method=${echo}`)).runs).toEqual([]);
    expect((await get("accepted_after=2999-01-01T00:00:00Z")).runs).toEqual([]);
    const bad = await ask(gateway, "/api/v1/runs?page_token=nonsense");
    expect(bad).toMatchObject({ status: 400, json: { reason: "PAGE_TOKEN_INVALID" } });
    expect(first!.json).toMatchObject({ status: "RUN_STATUS_SUCCEEDED", output: { words: 1 } });
    const logs = await ask(gateway, `/api/v1/runs/${first!.json.runId}/logs`);
    expect(logs.json.attempts[0].lines[0]).toMatchObject({ level: "LOG_LEVEL_INFO", message: "scoring" });
  });

  it("carries 4 MB there and back, which no single message could", async () => {
    const data = Buffer.alloc(4_000_000, 7).toString("base64");
    const answer = await ask(gateway, `/v1/${echo}`, { body: { data } });
    expect(answer.status).toBe(200);
    expect(answer.json.data === data).toBe(true);
  }, 120_000);

  it("serves its own numbers", async () => {
    const { text } = await ask(gateway, "/metrics");
    expect(text).toMatch(/http_server_request_duration_seconds_count\{http_request_method="POST",[^}]*\} \d+/);
  });
});

describe("a validating proxy", () => {
  it("finds nothing wrong with the answers above", async () => {
    expect(await faultsSeenByPrism(gateway)).toEqual([]);
  });

  it("passes live answers on, but for one that breaks the document", async () => {
    const { text } = await ask(gateway, "/openapi.json");
    // The same document, but that the output is to be a text.
    const wrong = JSON.parse(text);
    const { content } = wrong.paths[`/v1/${score}`].post.responses["200"];
    const properties = { words: { type: "string" } };
    content["application/json"].schema = { type: "object", required: ["words"], properties };
    const prism = await startPrism(JSON.stringify(wrong), gateway.address);
    try {
      const stopped = await ask(prism, `/v1/${score}`, { body: { text: "a b" } });
      expect(stopped).toMatchObject({ status: 500, text: expect.stringContaining("words") });
      const refused = await ask(prism, `/v1/${score}`, { body: { txt: "a" } });
      expect(refused).toMatchObject({ status: 400, json: { reason: "INPUT_INVALID" } });
    } finally {
      await prism.stop();
    }
  });
});
