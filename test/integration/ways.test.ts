/**
 * Everything that docs/ways.md lists, done by gRPC, by REST and by the command line, with the same expectations: on what is embedded (PGlite, messages
 * in memory) and on servers (Postgres, NATS JetStream). What was used is compared with the page at the end.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { JsonObject } from "@bufbuild/protobuf";
import type { Gateway } from "@taskmesh/gateway";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { settingsIn } from "../fixtures/chain-settings.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { startTestGateway } from "../fixtures/rest-gateway.js";
import { chainName, chains } from "../fixtures/way-chains.js";
import { type WayHandler, wayHandler } from "../fixtures/way-handler.js";
import * as to from "../fixtures/way-operations.js";
import { type Answered, cliWay, grpcWay, type Operation, restWay, type Way } from "../fixtures/ways.js";
import { rowsWith } from "../fixtures/ways-page.js";

const score = "acme.pages.v1.PageActions/Score";
const names = ["grpc", "rest", "cli"] as const;
const columns = { grpc: "gRPC", rest: "REST", cli: "command line" } as const;
const within = { timeout: 30_000, interval: 50 };
const folder = mkdtempSync(join(tmpdir(), "taskmesh-ways-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(["embedded", "servers"] as const)("on %s", (on) => {
  let mesh: InProcessMesh;
  let gateway: Gateway;
  let handler: WayHandler;
  let ways: Record<(typeof names)[number], Way>;

  beforeAll(async () => {
    mesh = await startInProcessMesh({ on, intervals: { beatMs: 200, flushMs: 50 } });
    gateway = await startTestGateway([mesh.address.port]);
    handler = wayHandler();
    await mesh.serve([handler.action]);
    ways = { grpc: grpcWay(mesh.address), rest: await restWay(gateway), cli: cliWay(gateway) };
    // Each way checks and stores some of them; the last one's chain is stored again by the others, which changes nothing.
    const all = Object.entries(chains);
    for (const [index, [chain, yaml]] of all.entries()) {
      const put = (turn: number) => ways[names[turn % 3]!].run(to.putChain(yaml, folder, chain !== "Limits"));
      expect(await ways[names[(index + 1) % 3]!].run(to.validateChain(yaml, folder))).toMatchObject({ problems: [] });
      expect(await put(index), chain).toMatchObject({ created: true, chain: { version: 1 } });
      if (index < all.length - 1) continue;
      for (const turn of [1, 2])
        expect(await put(index + turn)).toMatchObject({ created: false, chain: { version: 1 } });
    }
  }, 120_000);
  afterAll(async () => {
    for (const way of Object.values(ways ?? {})) way.close();
    await gateway?.stop();
    await mesh?.stop();
  }, 60_000);

  /** One point of the page, over each way; `key` tells the runs of the ways apart. */
  const over = (point: string, walk: (way: Way, key: string) => Promise<void>): void => {
    it.each(names)(`${point}, over %s`, { timeout: 120_000 }, (name) => walk(ways[name], name));
  };
  const start = async (way: Way, chain: string, input: JsonObject, options: to.StartOptions = {}): Promise<string> => {
    const answer = await way.run(to.start(chainName(chain), input, options));
    expect(answer).toMatchObject({ runId: expect.any(String) });
    return answer.runId;
  };
  const end = async (way: Way, runId: string) => {
    const { status, output, failure } = await way.run(to.result(runId));
    return [String(status).replace("RUN_STATUS_", ""), output?.words ?? failure?.reason];
  };
  const statusOf = async (way: Way, runId: string): Promise<string> =>
    (await way.run(to.show(runId))).run.status.replace("RUN_STATUS_", "");
  const stepsOf = async (way: Way, runId: string): Promise<Record<string, Answered>> =>
    Object.fromEntries((await way.run(to.show(runId))).steps.map((step: Answered) => [step.stepId, step]));
  const breakOne = async (way: Way, text: string, options: to.StartOptions = {}): Promise<string> => {
    const runId = await start(way, "Broken", { text }, options);
    expect(await end(way, runId)).toEqual(["BROKEN", text.split(" ")[1]]);
    return runId;
  };
  /** The page's answer to an operation that changes a run: its status then. */
  const change = async (way: Way, operation: Operation): Promise<string> =>
    String((await way.run(operation)).run?.status).replace("RUN_STATUS_", "");

  describe.concurrent("each way", () => {
    over("chains are shown and listed", async (way) => {
      const { chain } = await way.run(to.getChain(chainName("Flow"), 1));
      expect(chain).toMatchObject({ name: chainName("Flow"), version: 1 });
      const listed = (await way.run(to.listChains())).chains.map(({ name }: { name: string }) => name);
      expect(listed).toEqual(expect.arrayContaining(Object.keys(chains).map(chainName)));
    });

    over("a run fans out, branches, joins, races and repeats", async (way, tag) => {
      const runId = await start(way, "Flow", { texts: ["a", "fail NO_WORDS", "b c"], tag });
      expect(await end(way, runId)).toEqual(["SUCCEEDED", 2_000 + 100 + 20 + 4 + 3 + 1]);
      const steps = await stepsOf(way, runId);
      const statuses = Object.entries(steps).map(([id, { status }]) => [id, status.replace("STEP_STATUS_", "")]);
      expect(Object.fromEntries(statuses)).toMatchObject({
        ...{ never: "SKIPPED", two: "SUCCEEDED", other: "SKIPPED", slow: "CANCELLED", last: "SUCCEEDED" },
      });
      const { items } = await way.run(to.items(runId, "listed"));
      expect(items.map(({ status }: { status: string }) => status.replace("STEP_STATUS_", ""))).toEqual([
        ...["SUCCEEDED", "FAILED", "SUCCEEDED"],
      ]);
      const whole = await way.run(to.stepOutput(runId, "first"));
      expect(
        way.name === "rest" ? whole : whole.steps.find((step: Answered) => step.stepId === "first").output,
      ).toEqual({
        words: 4,
      });
    });

    over("what becomes of runs below a run is as their steps say", async (way, tag) => {
      const runId = await start(way, "Parent", { text: `stay ${tag}` });
      const below = await vi.waitFor(async () => {
        const steps = await stepsOf(way, runId);
        const ids = ["cancelled", "abandoned", "awaited"].map((id) => String(steps[id].childRunId));
        for (const id of ids) expect((await stepsOf(way, id))["wait_for_it"].status).toBe("STEP_STATUS_WAITING");
        return ids;
      }, within);
      const [cancelled = "", abandoned = "", awaited = ""] = below;
      const { run } = await way.run(to.show(abandoned));
      expect(run).toMatchObject({ parentRunId: runId, parentStepId: "abandoned", depth: 1 });
      await way.run(to.control("cancel", runId));
      await vi.waitFor(async () => expect(await statusOf(way, cancelled)).toBe("CANCELLED"), within);
      expect([await statusOf(way, abandoned), await statusOf(way, awaited), await statusOf(way, runId)]).toEqual([
        ...["RUNNING", "RUNNING", "RUNNING"],
      ]);
      for (const id of [awaited, abandoned]) {
        await way.run(to.signal(id, "go", {}, "g"));
        expect(await end(way, id)).toEqual(["SUCCEEDED", 2]);
      }
      expect(await end(way, runId)).toEqual(["CANCELLED", "CANCELLED"]);
    });

    over("failures are caught by their reason, or go up with their cause", async (way) => {
      expect(await end(way, await start(way, "Caught", { text: "fail NO_WORDS" }))).toEqual(["SUCCEEDED", 8]);
      expect(await end(way, await start(way, "Caught", { text: "fail NO_IDEA" }))).toEqual(["FAILED", "NO_IDEA"]);
      const { failure } = await way.run(to.result(await start(way, "Parent", { text: "fail NO_CHILD" })));
      expect(failure).toMatchObject({ reason: "NO_CHILD", cause: { reason: "NO_CHILD" } });
    });

    over("a broken run is retried, with another input too, skipped, restarted, cloned", async (way, key) => {
      const text = `fail MENDED ${key}`;
      const retried = await breakOne(way, text);
      handler.mended.add(text);
      expect(await change(way, to.retryAll(retried))).toMatch(/RUNNING|SUCCEEDED/);
      expect(await end(way, retried)).toEqual(["SUCCEEDED", 1]);
      const text2 = `fail AGAIN ${key}`;
      const [edited = "", skipped = "", restarted = "", anew = "", cloned = ""] = await Promise.all(
        Array.from({ length: 5 }, () => breakOne(way, text2)),
      );
      await way.run(to.retryWith(edited, "fragile", { text: "three words now" }));
      expect(await end(way, edited)).toEqual(["SUCCEEDED", 3]);
      await way.run(to.skipWith(skipped, "fragile", { words: 70 }));
      expect(await end(way, skipped)).toEqual(["SUCCEEDED", 70]);
      const copy = await way.run(to.clone(cloned, { text: "two words" }));
      expect(await end(way, copy.runId)).toEqual(["SUCCEEDED", 2]);
      handler.mended.add(text2);
      for (const operation of [to.restartFrom(restarted, "fragile"), to.restartNewest(anew)]) {
        const { runId } = await way.run(operation);
        expect(await end(way, runId)).toEqual(["SUCCEEDED", 1]);
      }
      for (const id of [restarted, anew, cloned]) expect(await end(way, id)).toEqual(["CANCELLED", "TERMINATED"]);
    });

    over("what was done is undone in reverse, once", async (way, key) => {
      const runId = await start(way, "Undone", { text: "fail SOLD_OUT", tag: key });
      expect(await end(way, runId)).toEqual(["FAILED", "SOLD_OUT"]);
      expect(handler.undone.filter((one) => one.startsWith(`undo ${key} `))).toEqual([
        `undo ${key} two`,
        `undo ${key} one SOLD_OUT`,
      ]);
      expect(await way.watch(runId).kinds).toContain("EVENT_KIND_RUN_COMPENSATING");
    });

    over("time passes, and is over, as chains and starts say", async (way, tag) => {
      const soon = (ms: number) => new Date(Date.now() + ms).toISOString();
      const startAt = soon(1_000);
      const [timed, expired, late, limits] = await Promise.all([
        start(way, "Timed", { at: soon(100) }, { startAt }),
        start(way, "Timed", { at: soon(3_600_000) }, { timeout: "0.5s" }),
        start(way, "Late", { tag }),
        start(way, "Limits", { tag }),
      ]);
      expect(await end(way, timed)).toEqual(["SUCCEEDED", 1]);
      // Where the instant had passed already when the run was accepted, it began at once.
      const { run } = await way.run(to.show(timed));
      const waited = Date.parse(run.acceptedAt) < Date.parse(startAt);
      expect((await way.watch(timed).kinds).includes("EVENT_KIND_RUN_STARTED")).toBe(waited);
      expect(Date.parse(run.endedAt)).toBeGreaterThanOrEqual(Date.parse(startAt));
      expect(await end(way, expired)).toEqual(["EXPIRED", "RUN_EXPIRED"]);
      expect(await end(way, late)).toEqual(["EXPIRED", "RUN_EXPIRED"]);
      expect(await end(way, limits)).toEqual(["SUCCEEDED", 1_111]);
      expect((await stepsOf(way, limits))["alive"].attempts).toHaveLength(1);
    });

    over("messages come early, once, are answered, and a callback is answered once", async (way, tag) => {
      const first = { name: "number", id: "n-1", value: { words: 5 } };
      const options = { signal: first, idempotencyKey: `messages-${tag}` };
      const started = await way.run(to.start(chainName("Messages"), { tag }, options));
      const { runId } = started;
      expect(await way.run(to.start(chainName("Messages"), { tag }, options))).toMatchObject({ runId, existing: true });
      const again = await way.run(to.signal(runId, "number", { words: 5 }, "n-1"));
      expect(again).toMatchObject({ existing: true });
      expect(await way.run(to.signal(runId, "nothing", {}, "x"))).toEqual({ refused: "SIGNAL_UNKNOWN" });
      const { answer } = await way.run(to.signalAndWait(runId, "question", { words: 21 }, "q-1"));
      expect(answer).toEqual({ words: 42 });
      // The caller is answered while the run goes on.
      expect((await way.run(to.result(runId))).output).toEqual({ words: 5 });
      const token = await vi.waitFor(() => {
        expect(handler.tokens.get(tag)).toBeTruthy();
        return handler.tokens.get(tag)!;
      }, within);
      expect(await way.run(to.callback(token, { words: "many" }))).toEqual({ refused: "INPUT_INVALID" });
      expect(await way.run(to.callback(token, { words: 9 }))).not.toHaveProperty("refused");
      expect(await way.run(to.callback(token, { words: 9 }))).toEqual({ refused: "CALLBACK_USED" });
      await vi.waitFor(async () => expect(await statusOf(way, runId)).toBe("SUCCEEDED"), within);
      handler.tokens.delete(tag);
    });

    over("people find, claim, give back, comment and complete what waits for them", async (way, who) => {
      const runId = await start(way, "Form", { who });
      const found = await vi.waitFor(async () => {
        const { assignments } = await way.run(to.inbox(runId, who, "counters"));
        expect(assignments).toHaveLength(1);
        return assignments[0];
      }, within);
      expect(found).toMatchObject({ stepId: "ask", title: `Words of ${who}`, assignees: [who] });
      expect((await way.run(to.showAssignment(runId, "ask"))).form).toMatchObject([{ name: "words", type: "int32" }]);
      const asks = (verb: Parameters<typeof to.act>[0], person: string, given = {}) =>
        way.run(to.act(verb, runId, "ask", person, given));
      expect(await asks("claim", "a stranger")).toEqual({ refused: "ASSIGNMENT_DENIED" });
      expect(await asks("claim", who)).not.toHaveProperty("refused");
      expect((await way.run(to.inbox(runId, who, "counters"))).assignments).toEqual([]);
      expect(await asks("comment", who, { text: "in a moment" })).not.toHaveProperty("refused");
      expect(await asks("release", who)).not.toHaveProperty("refused");
      expect(await asks("complete", who, { output: { words: 20 } })).not.toHaveProperty("refused");
      await vi.waitFor(async () => {
        const { assignment } = await way.run(to.showAssignment(runId, "urgent"));
        expect(assignment).toMatchObject({ escalated: 1, assignees: [who], groups: ["leads"] });
      }, within);
      expect(await way.run(to.act("complete", runId, "urgent", who, { output: { words: 300 } }))).not.toHaveProperty(
        "refused",
      );
      expect(await end(way, runId)).toEqual(["SUCCEEDED", 321]);
      const kinds = await way.watch(runId).kinds;
      for (const kind of ["CLAIMED", "COMMENTED", "RELEASED", "COMPLETED", "ESCALATED"])
        expect(kinds).toContain(`EVENT_KIND_ASSIGNMENT_${kind}`);
    });

    over("a run is paused, changed, resumed, cancelled with time to clean up, terminated", async (way, key) => {
      const text = `hold control ${key}`;
      const runId = await start(
        way,
        "Undone",
        { text, tag: `control-${key}` },
        { labels: { team: key }, priority: -3 },
      );
      expect(await change(way, to.control("pause", runId))).toBe("PAUSED");
      await way.run(to.update(runId, 7, { seen: "yes" }, ["team"]));
      expect((await way.run(to.show(runId))).run).toMatchObject({
        status: "RUN_STATUS_PAUSED",
        priority: 7,
        labels: { seen: "yes" },
      });
      expect(await change(way, to.control("resume", runId))).toBe("RUNNING");
      await vi.waitFor(
        async () => expect((await stepsOf(way, runId))["three"].status).toBe("STEP_STATUS_RUNNING"),
        within,
      );
      await way.run(to.control("cancel", runId));
      expect(await end(way, runId)).toEqual(["CANCELLED", "CANCELLED"]);
      expect(handler.stopped.get(text)).toBe("CANCELLED");
      expect(handler.undone.filter((one) => one.startsWith(`undo control-${key} `))).toHaveLength(2);
      const another = await start(way, "Plain", { text: `hold terminated ${key}` });
      expect(await change(way, to.control("terminate", another))).toBe("CANCELLED");
      expect(await way.run(to.control("pause", another))).toEqual({ refused: "RUN_ENDED" });
    });

    over("an id of the caller's own is one run's, as the policies say, and finds it", async (way, key) => {
      const customId = `order-${key}`;
      const input = { text: `hold named ${key}` };
      const method = chainName("Plain");
      const options = { customId, starter: `ann-${key}`, labels: { of: key } };
      const since = new Date(Date.now() - 60_000).toISOString();
      const runId = await start(way, "Plain", input, options);
      const ask = (more: to.StartOptions) => way.run(to.start(method, input, { ...options, ...more }));
      expect(await ask({ idConflict: "ID_CONFLICT_POLICY_FAIL" })).toEqual({ refused: "CUSTOM_ID_TAKEN" });
      expect(await ask({ idConflict: "ID_CONFLICT_POLICY_USE_EXISTING" })).toMatchObject({ runId, existing: true });
      const next = (await ask({ idConflict: "ID_CONFLICT_POLICY_TERMINATE_EXISTING" })).runId;
      expect(await end(way, runId)).toEqual(["CANCELLED", "TERMINATED"]);
      const until = new Date(Date.now() + 60_000).toISOString();
      const by = { method, label: ["of", key] as [string, string], since, until, customId, starter: options.starter };
      const { runs } = await way.run(to.list({ ...by, status: "RUNNING" }));
      expect(runs.map((run: Answered) => run.runId)).toEqual([next]);
      expect(runs[0]).toMatchObject({ starter: options.starter });
      await handler.release(input.text);
      expect(await end(way, next)).toEqual(["SUCCEEDED", 1]);
      expect(await ask({ idReuse: "ID_REUSE_POLICY_ALLOW_IF_FAILED" })).toEqual({ refused: "CUSTOM_ID_USED" });
      expect(await ask({ idReuse: "ID_REUSE_POLICY_REJECT" })).toEqual({ refused: "CUSTOM_ID_USED" });
    });

    over(
      "progress, estimates and logs are seen while a handler runs; a checkpoint is gone on from",
      async (way, key) => {
        const flaky = await start(way, "Plain", { text: `flaky ${key}` });
        expect(await end(way, flaky)).toEqual(["SUCCEEDED", 7]);
        const text = `report ${key}`;
        const runId = await start(way, "Plain", { text });
        const watching = way.watch(runId);
        await vi.waitFor(async () => {
          const { progress } = (await stepsOf(way, runId))["score"];
          expect(progress).toMatchObject({ percent: 40, message: "four of ten" });
        }, within);
        await vi.waitFor(() => expect(watching.progressed()).toBe(true), within);
        await handler.release(text);
        expect((await watching.kinds).at(-1)).toBe("EVENT_KIND_RUN_ENDED");
        expect(await end(way, runId)).toEqual(["SUCCEEDED", 4]);
        const { attempts } = await way.run(to.logs(runId, "score"));
        expect(attempts[0].lines).toMatchObject([{ message: "reporting" }]);
        const slow = await Promise.all(Array.from({ length: 3 }, () => start(way, "Plain", { text: `alive ${key}` })));
        for (const id of slow) await end(way, id);
        const mute = await start(way, "Plain", { text: `hold mute ${key}` });
        await vi.waitFor(async () => {
          const { run } = await way.run(to.show(mute));
          expect(run.progress).toMatchObject({ estimated: true, percent: expect.any(Number) });
        }, within);
        await handler.release(`hold mute ${key}`);
        expect(await end(way, mute)).toEqual(["SUCCEEDED", 1]);
      },
    );

    over("what is named or given at run time is launched", async (way) => {
      const direct = await start(way, "Launcher", { action: score, text: "launched by a step" });
      expect(await end(way, direct)).toEqual(["SUCCEEDED", 4]);
      const yaml = chains["Plain"]!.replace("Ways/Plain", "Ways/Given");
      for (const what of [{ action: score }, { chain: chainName("Plain") }, { yaml, folder }]) {
        const { runId } = await way.run(to.launch(what, { text: "a launched text" }));
        await vi.waitFor(async () => expect(await statusOf(way, runId)).toBe("SUCCEEDED"), within);
        const steps: Answered[] = Object.values(await stepsOf(way, runId));
        const below = steps.find(({ childRunId }) => childRunId !== "").childRunId;
        expect(await end(way, below)).toEqual(["SUCCEEDED", 3]);
      }
    });

    over("groups of runs are counted, and held, changed, mended and ended as a whole", async (way, key) => {
      const reason = `GROUP_${key.toUpperCase()}`;
      const text = `fail ${reason}`;
      const labels = { group: key };
      const starter = `team-${key}`;
      const since = new Date(Date.now() - 60_000).toISOString();
      const runIds = await Promise.all(
        [0, 1, 2, 3, 4].map((turn) => breakOne(way, text, { labels: { ...labels, turn: `${turn}` }, starter })),
      );
      const { groups } = await way.run(to.groupBroken());
      expect(groups).toContainEqual(
        expect.objectContaining({ reason, action: score, method: chainName("Broken"), starter, count: "5" }),
      );
      const all = { ...{ labels, method: chainName("Broken"), starter, acceptedAfter: since } };
      const filter = { ...all, acceptedBefore: new Date(Date.now() + 60_000).toISOString() };
      const group = { ...filter, statuses: ["RUN_STATUS_BROKEN"], brokenReason: reason, brokenAction: score };
      const whole = async (what: string, by: to.BulkFilter, more?: to.BulkMore) => {
        const begun = await way.run(to.bulk(what, by, more));
        expect(begun).toMatchObject({ operation: { operationId: expect.any(String) } });
        return vi.waitFor(async () => {
          const { operation } = await way.run(to.showBulk(begun.operation.operationId));
          expect(operation.endedAt).toBeTruthy();
          return [operation.changed, operation.unchanged, operation.failed];
        }, within);
      };
      const only = (turn: number): to.BulkFilter => ({ ...group, labels: { ...labels, turn: `${turn}` } });
      const change = { priority: 5, setLabels: { seen: "yes" }, removeLabels: ["none"] };
      expect(await whole("update", group, change)).toEqual([5, 0, 0]);
      expect((await way.run(to.show(runIds[0]!))).run).toMatchObject({ priority: 5, labels: { seen: "yes" } });
      expect(await whole("skip", only(0), { stepId: "fragile", value: { words: 50 } })).toEqual([1, 0, 0]);
      expect(await end(way, runIds[0]!)).toEqual(["SUCCEEDED", 50]);
      const input = { text: "six words in all it has" };
      expect(await whole("retry", only(1), { stepId: "fragile", value: input })).toEqual([1, 0, 0]);
      expect(await end(way, runIds[1]!)).toEqual(["SUCCEEDED", 6]);
      // What goes on from it succeeds, so that it does not join the group.
      handler.mended.add(text);
      expect(await whole("restart", only(2), { stepId: "fragile", newest: true })).toEqual([1, 0, 0]);
      expect(await end(way, runIds[2]!)).toEqual(["CANCELLED", "TERMINATED"]);
      expect(await whole("terminate", only(3))).toEqual([1, 0, 0]);
      expect(await whole("cancel", { ...filter, statuses: ["RUN_STATUS_BROKEN"] })).toEqual([1, 0, 0]);
      const held = await Promise.all(
        [1, 2].map((n) => start(way, "Child", { text: `stay ${key} ${n}` }, { labels: { held: key } })),
      );
      expect(await whole("pause", { labels: { held: key } })).toEqual([2, 0, 0]);
      for (const id of held) expect(await statusOf(way, id)).toBe("PAUSED");
      expect(await whole("resume", { labels: { held: key } })).toEqual([2, 0, 0]);
      expect(await whole("terminate", { labels: { held: key } })).toEqual([2, 0, 0]);
    });
  });

  it.each(names)("nothing of the page was left out, over %s", (name) => {
    const listed = rowsWith("gRPC").flatMap((row) => {
      const cell = row[columns[name]]!.names;
      if (name === "grpc") return cell;
      if (name === "rest") return cell.map((field, index) => (index === 0 ? field : `${cell[0]} ${field}`));
      return cell.flatMap(commandsOf);
    });
    expect([...new Set(listed)].filter((one) => !ways[name].used.has(one))).toEqual([]);
  });

  it("nothing of what handlers say was left out", () => {
    const listed = rowsWith("in the handler").flatMap((row) => row["in the handler"]!.names);
    expect(listed.filter((one) => !handler.used.has(one))).toEqual([]);
  });
});

it("the chains say all that the page says can be declared", () => {
  const said = new Set(Object.values(chains).flatMap(settingsIn));
  const listed = rowsWith("settings").flatMap(({ settings }) => settings!.names);
  expect(listed.filter((name) => !said.has(name))).toEqual([]);
});

/** "runs list --status --method" as the command with each of its options. */
function commandsOf(name: string): string[] {
  const words = name.split(" ");
  const command = words.filter((word) => !word.startsWith("--")).join(" ");
  return [command, ...words.filter((word) => word.startsWith("--")).map((option) => `${command} ${option}`)];
}
