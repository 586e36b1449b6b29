import {
  ChainInvalid,
  type ChainSpec,
  ChainSpec as ChainSpecCodec,
  type Expression,
  ParentClose,
  type PutChainResponse,
  type StepSpec,
  StepSpec as StepSpecCodec,
} from "@taskmesh/proto";
import { type StatusError, unaryCall } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Scope, Value } from "../engine/plan.js";
import {
  methodOf,
  openTestDatabase,
  registration,
  startTestCoordinator,
  stopDatabases,
  type TestCoordinator,
  type TestDatabase,
  type TestService,
  TestWorker,
  waitFor,
} from "../registry/registry-fixture.js";

afterAll(stopDatabases);

const service: TestService = { package: "acme.pages.v1" };
/** The service's own task queue, which steps use where they say nothing else. */
const queue = methodOf(service).split("/")[0]!;
const cel = (text: string): Expression => ({ kind: { $case: "cel", value: text } });

function step(id: string, input: Record<string, Expression>, more: Partial<StepSpec> = {}): StepSpec {
  return { ...StepSpecCodec.create(), id, call: methodOf(service), input, ...more };
}

function chain(change: Partial<ChainSpec> = {}): ChainSpec {
  return {
    ...ChainSpecCodec.create(),
    contract: { name: "acme.pages.v1.Pages/Check", input: { text: "string" }, output: { text: "string" } },
    steps: [step("one", { text: cel("input.text") }), step("two", { text: cel("steps.one.output.text") })],
    output: { text: cel("steps.two.output.text") },
    ...change,
  };
}

describe.each(["pglite", "postgres"] as const)("chains on %s", (kind) => {
  let database: TestDatabase;
  let coordinator: TestCoordinator;
  let worker: TestWorker;

  beforeEach(async () => {
    database = await openTestDatabase(kind);
    coordinator = await startTestCoordinator(database.db);
    worker = await TestWorker.start(coordinator, registration([service], 4, queue));
    await waitFor("the lane", () => coordinator.registry.catalogue.liveLanes().length === 1);
  });
  afterEach(async () => {
    await worker.leave();
    await coordinator.stop();
    await database.dispose();
  });

  const put = (spec: ChainSpec, requireLiveWorkers = false): Promise<PutChainResponse> =>
    unaryCall(coordinator.chains, coordinator.chains.putChain, { namespace: "default", spec, requireLiveWorkers });
  const refusal = (spec: ChainSpec, requireLiveWorkers = false): Promise<StatusError> =>
    put(spec, requireLiveWorkers).then(
      () => Promise.reject(new Error("the chain was stored")),
      (error: StatusError) => error,
    );

  it("stores a chain with its edges and shows it", async () => {
    const { chain: stored, created, warnings } = await put(chain());
    expect(stored).toMatchObject({
      name: "acme.pages.v1.Pages/Check",
      version: 1,
      edges: [{ from: "one", to: "two" }],
    });
    expect(created).toBe(true);
    expect(warnings).toEqual([]);
    const shown = await unaryCall(coordinator.chains, coordinator.chains.getChain, {
      namespace: "default",
      name: "acme.pages.v1.Pages/Check",
      version: 0,
    });
    expect(shown.chain?.spec?.steps.map((one) => one.id)).toEqual(["one", "two"]);
    expect(shown.chain).toEqual(stored);
  });

  it("returns the version that exists for an unchanged chain, however its maps are ordered", async () => {
    const contract = {
      name: "acme.pages.v1.Pages/Check",
      input: { text: "string", lang: "string" },
      output: { text: "string" },
    };
    await put(chain({ contract }));
    const turned = { ...contract, input: { lang: "string", text: "string" } };
    expect(await put(chain({ contract: turned }))).toMatchObject({ created: false, chain: { version: 1 } });
    expect(await put(chain({ contract, description: "new" }))).toMatchObject({ created: true, chain: { version: 2 } });
    expect(await put(chain({ contract }))).toMatchObject({ created: true, chain: { version: 3 } });
  });

  it("keeps field numbers by name from the first save, whoever else saves at the same time", async () => {
    const contract = (...fields: string[]) => ({
      name: "acme.pages.v1.Pages/Check",
      input: Object.fromEntries(["text", ...fields].map((field) => [field, "string"])),
      output: { text: "string" },
    });
    const first = await put(chain({ contract: contract("b") }));
    const saves = ["a", "c", "d", "e"].map((field) => put(chain({ contract: contract("b", field) })));
    const versions = (await Promise.all(saves)).map((saved) => saved.chain?.version);
    expect([...versions].sort()).toEqual([2, 3, 4, 5]);
    const numbers = async (fingerprint: string): Promise<Record<string, number>> => {
      const found = await coordinator.registry.contracts.byFingerprint(1, fingerprint);
      return Object.fromEntries((found?.input.fields ?? []).map((field) => [field.name, field.number]));
    };
    const before = await numbers(first.chain?.contract ?? "");
    const all = await put(chain({ contract: contract("b", "z") }));
    const after = await numbers(all.chain?.contract ?? "");
    expect(after).toMatchObject(before);
    expect(Object.values(after).filter((number) => number === after["z"])).toHaveLength(1);
    expect(after["z"]).toBeGreaterThan(before["b"] ?? 0);
  });

  it("names step, field, place and the nearest name of each mistake", async () => {
    const spec = chain({
      steps: [step("one", { text: cel("input.txt") }), step("two", { text: cel("steps.onee.output.text") })],
    });
    const error = await refusal(spec);
    expect(error).toMatchObject({ reason: "CHAIN_INVALID" });
    const problems = error.detail("taskmesh.v1.ChainInvalid", ChainInvalid)?.problems ?? [];
    expect(problems.map((one) => [one.stepId, one.field, one.suggestion])).toEqual(
      expect.arrayContaining([
        ["one", "text", "text"],
        ["two", "text", "one"],
      ]),
    );
    expect(problems[0]?.expression).toBe("input.txt");
    expect(error.fieldViolations.length).toBeGreaterThan(0);
    const checked = await unaryCall(coordinator.chains, coordinator.chains.validateChain, {
      namespace: "default",
      spec,
    });
    expect(checked.problems).toEqual(problems);
  });

  it("says what is wrong with a hundred long mistakes, within what a status can carry", async () => {
    const long = `input.${"x".repeat(5_000)}`;
    const steps = Array.from({ length: 100 }, (_, index) => step(`s${index}`, { text: cel(long) }));
    const error = await refusal(chain({ steps, output: {} }));
    expect(error.reason).toBe("CHAIN_INVALID");
    expect(error.detail("taskmesh.v1.ChainInvalid", ChainInvalid)?.problems.length).toBeGreaterThan(0);
    expect(error.fieldViolations.length).toBeGreaterThan(0);
  });

  it("refuses unknown actions, chains as steps, and names of actions", async () => {
    await put(chain());
    const unknown = await refusal(
      chain({ steps: [step("one", {}, { call: "acme.pages.v1.TestActions/Rum" })], output: {} }),
    );
    expect(unknown.detail("taskmesh.v1.ChainInvalid", ChainInvalid)?.problems[0]).toMatchObject({
      reason: "UNKNOWN_ACTION",
      suggestion: methodOf(service),
    });
    const taken = chain({
      contract: { name: methodOf(service), input: { text: "string" }, output: { text: "string" } },
    });
    expect(await refusal(taken)).toMatchObject({ reason: expect.stringMatching(/METHOD_TAKEN|CHAIN_INVALID/) });
  });

  it("stores steps that call a chain or the chain itself, checked against its contract", async () => {
    await put(chain());
    const outer = (
      one: Partial<StepSpec>,
      input: Record<string, Expression> = { text: cel("input.text") },
    ): ChainSpec =>
      chain({
        contract: { name: "acme.pages.v1.Pages/Outer", input: { text: "string" }, output: { text: "string" } },
        steps: [step("one", input, { call: "acme.pages.v1.Pages/Check", ...one })],
        output: { text: cel("steps.one.output.text") },
      });
    const { warnings } = await put(outer({}));
    expect(warnings).toEqual([]);
    expect((await put(outer({ call: "acme.pages.v1.Pages/Outer" }))).created).toBe(true);
    const problemsOf = async (spec: ChainSpec) =>
      (await refusal(spec)).detail("taskmesh.v1.ChainInvalid", ChainInvalid)?.problems ?? [];
    expect(await problemsOf(outer({}, { txt: cel("input.text") }))).toMatchObject([
      { reason: "UNKNOWN_FIELD", path: "steps[0].input.txt", suggestion: "text" },
    ]);
    expect(await problemsOf(outer({ taskQueue: "q" }))).toMatchObject([{ reason: "CONFLICT", field: "task_queue" }]);
    const close = { call: methodOf(service), parentClose: ParentClose.PARENT_CLOSE_WAIT };
    expect(await problemsOf(outer(close))).toMatchObject([{ reason: "CONFLICT", field: "parent_close" }]);
  });

  it("refuses an absent spec and one without steps", async () => {
    const absent = unaryCall(coordinator.chains, coordinator.chains.putChain, {
      namespace: "default",
      spec: undefined,
      requireLiveWorkers: false,
    });
    await expect(absent).rejects.toMatchObject({ reason: "CHAIN_INVALID" });
    expect(await refusal(chain({ steps: [], output: {} }))).toMatchObject({ reason: "CHAIN_INVALID" });
  });

  it("warns of steps that no live worker serves, or refuses them when asked to", async () => {
    await worker.leave();
    await waitFor("the lane to go", () => coordinator.registry.catalogue.liveLanes().length === 0);
    expect(await refusal(chain(), true)).toMatchObject({ reason: "CHAIN_UNSERVABLE" });
    const { warnings } = await put(chain());
    expect(warnings.map((warning) => [warning.reason, warning.stepId])).toEqual([
      ["NO_LIVE_WORKER", "one"],
      ["NO_LIVE_WORKER", "two"],
    ]);
  });

  it("warns of steps on a task queue where no live worker serves them, and of chains that call such", async () => {
    const elsewhere = (stepId: string) => step(stepId, { text: cel("input.text") }, { taskQueue: "other" });
    const { warnings } = await put(chain({ steps: [elsewhere("one")], output: {} }));
    expect(warnings).toMatchObject([
      { reason: "NO_LIVE_WORKER", stepId: "one", expected: `task queue ${queue}`, found: "other", suggestion: queue },
    ]);
    const outer = chain({
      contract: { name: "acme.pages.v1.Pages/Outer", input: { text: "string" }, output: {} },
      steps: [step("inner", { text: cel("input.text") }, { call: "acme.pages.v1.Pages/Check" })],
      output: {},
    });
    expect(await refusal(outer, true)).toMatchObject({ reason: "CHAIN_UNSERVABLE" });
    expect((await put(outer)).warnings).toMatchObject([
      { reason: "NO_LIVE_WORKER", stepId: "inner", path: "steps[0].call" },
    ]);
    // The inner chain lets go of what the outer one is pinned to.
    const narrowed = { name: "acme.pages.v1.Pages/Check", input: { text: "string", more: "string" }, output: {} };
    const { warnings: broken } = await put(chain({ contract: narrowed, steps: [step("one", {})], output: {} }));
    expect(broken).toMatchObject([{ reason: "BREAKS_CALLER", found: "acme.pages.v1.Pages/Outer" }]);
  });

  it("lists the newest version of each chain by name, page by page", async () => {
    const names = ["a.v1.S/B", "a.v1.S/A", "a.v1.S/C", "Z.v1.S/A"];
    for (const name of names)
      await put(chain({ contract: { name, input: { text: "string" }, output: { text: "string" } } }));
    await put(
      chain({ contract: { name: "a.v1.S/A", input: { text: "string", more: "string" }, output: { text: "string" } } }),
    );
    const seen: string[] = [];
    let pageToken = "";
    do {
      const page = await unaryCall(coordinator.chains, coordinator.chains.listChains, {
        namespace: "",
        pageSize: 2,
        pageToken,
      });
      seen.push(...page.chains.map((one) => `${one.name} ${one.version}`));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    expect(seen).toEqual(["Z.v1.S/A 1", "a.v1.S/A 2", "a.v1.S/B 1", "a.v1.S/C 1"]);
    const garbage = unaryCall(coordinator.chains, coordinator.chains.listChains, {
      namespace: "",
      pageSize: 2,
      pageToken: "%%%",
    });
    await expect(garbage).rejects.toMatchObject({ reason: "PAGE_TOKEN_INVALID" });
  });

  it.each(["nobody/X", "", "a\u0000b", "x".repeat(10_000)])("finds no chain %j", async (name) => {
    const got = unaryCall(coordinator.chains, coordinator.chains.getChain, { namespace: "", name, version: 0 });
    await expect(got).rejects.toMatchObject({ reason: "CHAIN_NOT_FOUND" });
  });

  it("gives new runs the newest version at once, and accepted runs the one that they are pinned to", async () => {
    const { plans } = coordinator.registry;
    const first = await put(chain());
    const name = "acme.pages.v1.Pages/Check";
    expect(await plans.current(1, name)).toMatchObject({ version: 1, contract: first.chain?.contract });
    await put(
      chain({
        steps: [step("only", { text: cel("input.text + '!'") })],
        output: { text: cel("steps.only.output.text") },
      }),
    );
    expect((await plans.current(1, name))?.steps.map((one) => one.id)).toEqual(["only"]);
    const pinned = await plans.pinned(1, name, 1, first.chain?.contract ?? "");
    expect(pinned.steps.map((one) => one.id)).toEqual(["one", "two"]);
    expect(await plans.current(1, "acme.pages.v1.Pages/Nothing")).toBeUndefined();
  });

  it("plans a lone action, and evaluates a chain's expressions on encoded messages", async () => {
    const { plans } = coordinator.registry;
    const lone = await plans.current(1, methodOf(service));
    expect(lone?.steps.map((one) => [one.id, one.method, one.taskQueue])).toEqual([
      ["call", methodOf(service), "acme.pages.v1.TestActions"],
    ]);
    const { chain: stored } = await put(chain());
    const plan = await plans.pinned(1, stored?.name ?? "", 1, stored?.contract ?? "");
    const bytes = Buffer.from([0x0a, 2, 0x68, 0x69]);
    const value: Value = { contract: plan.contract, sizeBytes: 4, sha256: new Uint8Array(32), bytes };
    const scope: Scope = {
      run: { id: "r", namespace: "default", method: plan.method, acceptedAtMs: 0 },
      input: value,
      outputs: [undefined, undefined],
    };
    const bound = plan.steps[0]?.bindInput(scope);
    expect(bound).toMatchObject({ kind: "value" });
    expect(bound?.kind === "value" && Buffer.from(bound.value)).toEqual(bytes);
  });

  it("pins steps to the contract revision that live workers serve", async () => {
    const newer = { ...service, inputFields: ["lang"] };
    const stream = coordinator.connect();
    await stream.register(registration([newer]));
    await waitFor("its lane", () => coordinator.registry.catalogue.liveLanes().length === 2);
    stream.call.end();
    await waitFor("its end", () => coordinator.registry.catalogue.liveLanes().length === 1);
    const { warnings } = await put(chain());
    expect(warnings).toEqual([]);
  });
});
