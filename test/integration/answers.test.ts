/**
 * Runs that answer while they go on, over both stores and both carriers: their callers early, senders of signals, and people in time. The chains
 * are those of the guides.
 */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Client } from "@grpc/grpc-js";
import { defineAction, fail } from "@taskmesh/action-sdk";
import { builtinActions, builtinConfig, builtinDescriptors } from "@taskmesh/actions";
import type { Gateway } from "@taskmesh/gateway";
import {
  type ChainSpec,
  EventKind,
  type GetRunResponse,
  RunStatus,
  SignalRunRequest,
  type SignalRunResponse,
  StepStatus,
} from "@taskmesh/proto";
import { createClient, formatAddress, isStatusError, unaryCall } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { compileProtos } from "../fixtures/compile-protos.js";
import { countOf, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { entriesOf } from "../fixtures/method-entries.js";
import { waitFor } from "../fixtures/process.js";
import { ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";
import { guideBlock, guideChain } from "../fixtures/trip-actions.js";

const descriptors = compileProtos({
  "acme/daily/v1/daily.proto": guideBlock("recipes.md", "proto", "service DailyActions"),
});
const entry = entriesOf(descriptors, "acme.daily.v1.DailyActions");
const place = "acme.daily.v1.Orders/Place";
const shop = "acme.orders.v1.Carts/Shop";
const handle = "acme.incidents.v1.Incidents/Handle";
const watch = "acme.watch.v1.Watches/Watch";
const cel = (value: string) => ({ kind: { $case: "cel" as const, value } });
const within = { timeout: 30_000, interval: 50 };

describe.each(["embedded", "servers"] as const)("answers on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  let plain: Client;
  let web: Server;
  let origin = "";
  /** What the web was sent. */
  const posted: { what?: string; fresh?: string[] }[] = [];
  let links: string[] = ["/one", "/two"];
  /** Slow halves that go on when they are told to. */
  const held = new Map<string, () => void>();

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on });
    gateway = await startTestGateway([mesh.address.port]);
    plain = createClient(Client, { addresses: [mesh.address] });
    await mesh.serve(
      [
        defineAction(entry<{ order: string }, { id: string }>("Pay"), ({ order }) => ({ id: `receipt of ${order}` })),
        defineAction(entry<{ path: string }, { files: number }>("Build"), async ({ path }) => {
          if (path === "unmade") throw fail.final("NO_WOOD", "there is none");
          if (path !== "chair") await new Promise<void>((resolve) => held.set(path, resolve));
          return { files: 1 };
        }),
      ],
      { descriptors },
    );
    const env = { TASKMESH_HTTP_ALLOW: "127.0.0.1", TASKMESH_ADDRESS: formatAddress(mesh.address) };
    const builtin = builtinActions(builtinConfig(env));
    await mesh.serve(builtin, { descriptors: builtinDescriptors });
    web = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        if (request.method === "POST") posted.push(JSON.parse(Buffer.concat(chunks).toString("utf8")));
        response.setHeader("content-type", "text/html");
        response.end(`<main>${links.map((href) => `<a href="${href}">${href}</a>`).join("")}</main>`);
      });
    });
    await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
    origin = `http://127.0.0.1:${(web.address() as AddressInfo).port}`;
    await mesh.putChain(guideChain("recipes.md", place));
    await mesh.putChain(guideChain("recipes.md", watch));
    await mesh.putChain(guideChain("waiting.md", shop));
    await mesh.putChain(hasty(guideChain("people.md", handle)));
    await mesh.putChain({
      contract: { name: "acme.daily.v1.Orders/PlaceAll", input: { order: "string" }, output: { receipt: "string" } },
      steps: [{ id: "one", call: place, input: { order: cel("input.order") } }],
      output: { receipt: cel("steps.one.output.receipt") },
    });
    await holdToDocument(gateway);
  }, 240_000);
  afterAll(async () => {
    for (const release of held.values()) release();
    plain?.close();
    web?.close();
    await gateway?.stop();
    await mesh?.stop();
  }, 30_000);

  /** The guide's chain with times that a test can wait for. */
  const hasty = (chain: ChainSpec): ChainSpec => ({
    ...chain,
    steps: chain.steps.map((step) => ({
      ...step,
      human: step.human && {
        ...step.human,
        escalations: step.human.escalations.map((one, nth) => ({
          ...one,
          after: { seconds: BigInt(nth), nanos: 300_000_000 },
        })),
      },
    })),
  });
  const start = (method: string, input: object, more: object = {}) =>
    mesh.start({ method, input: { $case: "json", value: JSON.stringify(input) }, ...more });
  const show = (runId: string): Promise<GetRunResponse> =>
    unaryCall(mesh.runs, mesh.runs.getRun, { namespace: "default", runId, omitPayloads: true });
  const result = async (runId: string, wait = "30s") =>
    (await ask(gateway, `/api/v1/runs/${runId}/result?wait=${wait}`)).json;
  const release = async (order: string): Promise<void> => {
    await waitFor("the slow half", () => held.has(order), 30_000);
    held.get(order)!();
  };

  describe("the caller", () => {
    it("has the answer of a plain REST call while the slow half goes on, and the run ends with it", async () => {
      const body = { order: "table", cents: 900 };
      const headers = { "idempotency-key": `table-${on}` };
      const answer = await ask(gateway, `/v1/${place}`, { body, headers });
      expect(answer).toMatchObject({ status: 200, json: { receipt: "receipt of table" } });
      const runId = String(answer.headers["taskmesh-run-id"]);
      expect(await result(runId)).toMatchObject({
        status: "RUN_STATUS_RUNNING",
        output: { receipt: "receipt of table" },
      });
      // The same call again, before and after the end.
      expect((await ask(gateway, `/v1/${place}`, { body, headers })).json).toEqual(answer.json);
      await release("table");
      await vi.waitFor(async () => expect((await result(runId)).status).toBe("RUN_STATUS_SUCCEEDED"), within);
      expect((await ask(gateway, `/v1/${place}`, { body, headers })).json).toEqual(answer.json);
      expect(countOf(await mesh.history(runId), EventKind.EVENT_KIND_RUN_RESPONDED)).toBe(1);
    }, 120_000);

    it("keeps it though the slow half fails", async () => {
      const runId = await start(place, { order: "unmade", cents: 1 });
      await vi.waitFor(async () => expect((await result(runId)).status).toBe("RUN_STATUS_FAILED"), within);
      expect(await result(runId)).toMatchObject({
        output: { receipt: "receipt of unmade" },
        failure: { reason: "NO_WOOD" },
      });
    }, 60_000);

    it("of a plain rpc, and the step of another chain, are answered too", async () => {
      const order = Buffer.from([0x0a, 5, ...Buffer.from("stool")]);
      const receipt = await vi.waitFor(
        () =>
          new Promise<string>((resolve, reject) => {
            const same = (bytes: Buffer) => bytes;
            plain.makeUnaryRequest(`/${place}`, same, same, order, (error, bytes) =>
              error ? reject(error) : resolve(String(bytes?.subarray(2))),
            );
          }),
        { timeout: 30_000, interval: 200 },
      );
      expect(receipt).toBe("receipt of stool");
      const parent = await start("acme.daily.v1.Orders/PlaceAll", { order: "shelf" });
      expect(await result(parent)).toMatchObject({
        status: "RUN_STATUS_SUCCEEDED",
        output: { receipt: "receipt of shelf" },
      });
      const child = (await show(parent)).steps[0]!.childRunId;
      expect((await show(child)).run!.status).toBe(RunStatus.RUN_STATUS_RUNNING);
      await release("shelf");
      expect((await mesh.result(child)).status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    }, 120_000);
  });

  describe("the sender of a signal", () => {
    const tell = (runId: string, name: string, value: object, id = "", seconds = 20): Promise<SignalRunResponse> =>
      unaryCall(
        mesh.runs,
        mesh.runs.signalRun,
        SignalRunRequest.fromPartial({
          ...{ namespace: "default", runId },
          signal: { name, id, value: { $case: "json", value: JSON.stringify(value) } },
          ...(seconds > 0 ? { wait: { seconds: BigInt(seconds), nanos: 0 } } : {}),
        }),
        { deadlineMs: 40_000 },
      );
    const reasonOf = (error: unknown): string => (isStatusError(error) ? error.reason : String(error));
    const bytesOf = ({ answer }: SignalRunResponse) => (answer?.data as { value: Uint8Array } | undefined)?.value;

    it("gets what the chain makes of it, again for the same id, and after the run's end", async () => {
      const runId = await start(shop, { cents: 5_000 });
      const path = `/api/v1/runs/${runId}/signals`;
      const body = { name: "coupon", id: "c-1", value: { code: "SPRING" }, wait: "20s" };
      const first = await ask(gateway, path, { body });
      expect(first).toMatchObject({ status: 200, json: { id: "c-1", answer: { accepted: true, cents: 4_500 } } });
      const again = await tell(runId, "coupon", { code: "SPRING" }, "c-1");
      expect(again).toMatchObject({ existing: true, delivered: true });
      expect(await tell(runId, "coupon", { code: "OTHER" }, "c-2").catch(reasonOf)).toBe("SIGNAL_NOT_AWAITED");
      expect(await tell(runId, "checkout", {}).catch(reasonOf)).toBe("ARGUMENT_INVALID");
      await tell(runId, "checkout", {}, "", 0);
      expect(await mesh.result(runId)).toMatchObject({ status: RunStatus.RUN_STATUS_SUCCEEDED });
      expect(Buffer.compare(bytesOf(await tell(runId, "coupon", { code: "SPRING" }, "c-1"))!, bytesOf(again)!)).toBe(0);
      expect((await ask(gateway, path, { body })).json.answer).toEqual({ accepted: true, cents: 4_500 });
      expect(await tell(runId, "coupon", { code: "SPRING" }, "c-3").catch(reasonOf)).toBe("RUN_ENDED");
    }, 120_000);

    it("is told in time that there is none yet, and that there will be none", async () => {
      const slow = "acme.orders.v1.Carts/Slow";
      const spec = guideChain("waiting.md", shop);
      const pause = { id: "pause", needs: ["coupon"], signal: {} };
      const steps = spec.steps.map((step) => (step.id === "told" ? { ...step, needs: ["pause"] } : step));
      await mesh.putChain({ ...spec, contract: { ...spec.contract!, name: slow }, steps: [...steps, pause] });
      const runId = await start(slow, { cents: 5_000 });
      const waiting = await tell(runId, "coupon", { code: "SPRING" }, "", 1);
      expect(waiting).toMatchObject({ delivered: true, existing: false, answer: undefined });
      expect(waiting.id).not.toBe("");
      const second = tell(runId, "coupon", { code: "SPRING" }, waiting.id);
      await tell(runId, "pause", {}, "", 0);
      expect(bytesOf(await second)).toBeDefined();
      const other = await start(slow, { cents: 5_000 });
      const never = tell(other, "coupon", { code: "SPRING" }, "n").catch(reasonOf);
      await vi.waitFor(async () => expect((await show(other)).steps[0]!.status).toBe(7), within);
      await unaryCall(mesh.runs, mesh.runs.cancelRun, { namespace: "default", runId: other, reason: "", actor: "" });
      expect(await never).toBe("SIGNAL_UNANSWERED");
    }, 120_000);
  });

  describe("people", () => {
    const inbox = async (query: string): Promise<string[]> =>
      (await ask(gateway, `/api/v1/assignments?${query}`)).json.assignments.map(
        ({ runId }: { runId: string }) => runId,
      );

    it("who do not answer are followed by others, and a pager", async () => {
      const input = { what: `fire on ${on}`, onCall: ["ada"], pager: `${origin}/page` };
      const runId = await start(handle, input);
      await waitFor("the pager", () => posted.some(({ what }) => what === input.what), 30_000);
      await vi.waitFor(async () => expect(await inbox("group=leads")).toContain(runId), within);
      expect(await inbox("person=ada")).not.toContain(runId);
      const shown = (await ask(gateway, `/api/v1/assignments/${runId}/fix`)).json.assignment;
      expect(shown).toMatchObject({ escalated: 2, groups: ["leads"], assignees: [] });
      const complete = { person: "lea", groups: ["leads"], output: { fixed: true, by: "lea" } };
      const done = await ask(gateway, `/api/v1/assignments/${runId}/fix/complete`, { body: complete });
      expect(done.status).toBe(200);
      expect((await result(runId)).output).toEqual({ fixed: true, by: "lea", paged: true });
      const notes = (await mesh.history(runId)).filter(
        ({ kind }) => kind === EventKind.EVENT_KIND_ASSIGNMENT_ESCALATED,
      );
      expect(notes.map(({ note }) => note)).toEqual(["1", "2"]);
    }, 120_000);
  });

  describe("a page watcher", () => {
    it("reports what is new, and nothing twice", async () => {
      const runs: string[] = [];
      const look = async (): Promise<string[]> => {
        const runId = await start(watch, { url: `${origin}/news`, css: "main", reportTo: `${origin}/report` });
        runs.push(runId);
        const ended = await result(runId);
        expect(ended).toMatchObject({ status: "RUN_STATUS_SUCCEEDED" });
        return ended.output.fresh ?? [];
      };
      const at = (...paths: string[]) => paths.map((path) => origin + path);
      expect(await look()).toEqual(at("/one", "/two"));
      expect(await look()).toEqual([]);
      links = ["/two", "/three"];
      expect(await look()).toEqual(at("/three"));
      expect(posted.flatMap(({ fresh }) => (fresh ? [fresh] : []))).toEqual([at("/one", "/two"), at("/three")]);
      const report = (await show(runs[1]!)).steps.find(({ stepId }) => stepId === "report");
      expect(report!.status).toBe(StepStatus.STEP_STATUS_SKIPPED);
    }, 120_000);
  });
});
