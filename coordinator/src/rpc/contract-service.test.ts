import {
  ContractBreaking,
  ContractSide,
  ContractVerdict,
  FieldUseKind,
  GateMode,
  type GetContractGateResponse,
} from "@taskmesh/proto";
import { type StatusError, unaryCall, uuidv7 } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  openTestDatabase,
  startTestCoordinator,
  stopDatabases,
  type TestCoordinator,
  type TestDatabase,
  TestWorker,
  waitFor,
} from "../registry/registry-fixture.js";
import { ensurePartitions } from "../store/partitions.js";
import { readRevisions } from "../store/registry.js";
import { billChain, fingerprintOf, offering, priceMethod, shop } from "./contract-service-fixture.js";

afterAll(stopDatabases);

const namespace = "default";
const first = shop();
const retyped = shop({ order: "string total = 2; string note = 3;" });
const grown = shop({ request: "string currency = 2;" });
const withoutTotal = shop({ order: 'reserved 2; reserved "total"; string note = 3;' });
const withoutNote = shop({ order: 'reserved 3; reserved "note"; double total = 2;' });

describe.each(["pglite", "postgres"] as const)("the gate on %s", (kind) => {
  let database: TestDatabase;
  let coordinator: TestCoordinator;

  beforeEach(async () => {
    database = await openTestDatabase(kind);
    coordinator = await startTestCoordinator(database.db);
  });
  afterEach(async () => {
    await coordinator.stop();
    await database.dispose();
  });

  const register = (set: Buffer) => coordinator.connect().register(offering(set));
  const refusal = (set: Buffer): Promise<StatusError> =>
    register(set).then(
      () => Promise.reject(new Error("the contract was registered")),
      (error: StatusError) => error,
    );
  const check = (descriptorSet: Buffer) =>
    unaryCall(coordinator.contracts, coordinator.contracts.checkContracts, { namespace, descriptorSet, methods: [] });
  const setGate = (mode: GateMode, reason = "") =>
    unaryCall(coordinator.contracts, coordinator.contracts.setContractGate, { namespace, mode, reason });
  const getGate = (): Promise<GetContractGateResponse> =>
    unaryCall(coordinator.contracts, coordinator.contracts.getContractGate, { namespace });
  const allow = (set: Buffer, reason: string) =>
    unaryCall(coordinator.contracts, coordinator.contracts.allowContract, {
      ...{ namespace, method: priceMethod, contract: fingerprintOf(set), reason },
    });
  const putChain = (spec = billChain()) =>
    unaryCall(coordinator.chains, coordinator.chains.putChain, { namespace, spec, requireLiveWorkers: false });
  const laneOf = (set: Buffer) =>
    coordinator.registry.catalogue.laneFor({
      ...{ namespaceId: 1, taskQueue: "shop", method: priceMethod, contract: fingerprintOf(set) },
    });
  const revisions = async () => (await readRevisions(database.db, 1, priceMethod)).map((row) => row.fingerprint);

  it("takes a compatible revision, and refuses one that breaks: rule, file, line, field, chain, step and what to do", async () => {
    await register(first);
    await putChain();
    expect((await register(grown)).warnings).toEqual([]);
    const error = await refusal(retyped);
    expect(error).toMatchObject({ reason: "CONTRACT_BREAKING", code: 9 });
    expect(error.message).toContain("shop/v1/shop.proto:5: shop.v1.Order.total was double, and is string");
    expect(error.message).toContain(`taskmesh contracts allow ${priceMethod} ${fingerprintOf(retyped)} --reason`);
    const [judgement] = error.detail("taskmesh.v1.ContractBreaking", ContractBreaking)?.judgements ?? [];
    expect(judgement).toMatchObject({ method: priceMethod, baseRevision: 2, baseContract: fingerprintOf(grown) });
    expect(judgement?.violations.map(({ rule, subject, sides }) => ({ rule, subject, sides }))).toEqual([
      // The field that the second revision added is missing in the third.
      ...["FIELD_NO_DELETE_UNLESS_NUMBER_RESERVED", "FIELD_NO_DELETE_UNLESS_NAME_RESERVED"].map((rule) => ({
        ...{ rule, subject: "shop.v1.PriceRequest.currency", sides: [ContractSide.CONTRACT_SIDE_INPUT] },
      })),
      {
        rule: "FIELD_WIRE_JSON_COMPATIBLE_TYPE",
        subject: "shop.v1.Order.total",
        sides: [ContractSide.CONTRACT_SIDE_OUTPUT],
      },
    ]);
    expect(judgement?.chains).toMatchObject([
      { name: "shop.v1.Shop/Bill", version: 1, current: true, steps: ["price"], unserved: true },
    ]);
    expect(judgement?.chains[0]?.uses).toMatchObject([
      {
        path: "output.value",
        field: "shop.v1.Order.total",
        kind: FieldUseKind.FIELD_USE_KIND_READ,
        source: "steps.price",
      },
    ]);
    expect(await revisions()).toEqual([fingerprintOf(first), fingerprintOf(grown)]);
  });

  it("counts the live runs that would be left to older workers", async () => {
    await register(first);
    await putChain();
    await ensurePartitions(database.db, Date.now());
    const insert = (method: string, version: number, contract: string, status: number) =>
      database.db.query(
        `insert into runs (id, namespace_id, method, chain_version, contract, status, version, last_seq, priority, accepted_at, deadline_at, wakeup_at, ended_at, state)
         values ($1::uuid, 1, $2::text, $3::int, $4::text, $5::smallint, 1, 1, 0, now(), now(),
           case when $5::smallint < 4 then now() end, case when $5::smallint >= 4 then now() end, ''::bytea)`,
        [uuidv7(), method, version, contract, status],
      );
    await insert("shop.v1.Shop/Bill", 1, "", 1);
    await insert("shop.v1.Shop/Bill", 1, "", 3);
    await insert("shop.v1.Shop/Bill", 1, "", 4);
    await insert(priceMethod, 0, fingerprintOf(first), 1);
    const { judgements } = await check(retyped);
    expect(judgements[0]).toMatchObject({ liveRuns: 1, runIds: [expect.any(String)], chains: [{ liveRuns: 2 }] });
    await database.db.query("truncate runs");
  });

  it("refuses a removed field that chains read, whatever is reserved, and takes one that none reads", async () => {
    await register(first);
    await putChain();
    const error = await refusal(withoutTotal);
    expect(error.message).toContain("shop.v1.Order.total was removed, and is read by shop.v1.Shop/Bill");
    expect(error.message).toContain("[MESH_FIELD_IN_USE]");
    const { warnings } = await register(withoutNote);
    // Compatible, and yet its workers can't give what the chain's contract promises.
    expect(warnings).toEqual([expect.stringContaining("chains shop.v1.Shop/Bill need workers of an earlier revision")]);
  });

  it("remembers what it accepted: a restart and a rollback are refused nothing", async () => {
    await register(first);
    await setGate(GateMode.GATE_MODE_ALLOW, "migration");
    expect((await register(retyped)).warnings).toEqual([expect.stringContaining("which is allowed (migration)")]);
    await setGate(GateMode.GATE_MODE_REFUSE);
    await coordinator.stop();
    coordinator = await startTestCoordinator(database.db);
    expect((await register(retyped)).warnings).toEqual([]);
    expect((await register(first)).warnings).toEqual([]);
    const { gate, history, decisions } = await getGate();
    expect(gate).toMatchObject({ mode: GateMode.GATE_MODE_REFUSE });
    expect(history).toMatchObject([{ mode: GateMode.GATE_MODE_ALLOW, reason: "migration" }]);
    expect(decisions).toMatchObject([
      { contract: fingerprintOf(retyped), reason: "migration", violations: [{ subject: "shop.v1.Order.total" }] },
    ]);
  });

  it("keeps a revision in quarantine registered and without work, until it is allowed", async () => {
    const old = await TestWorker.start(coordinator, offering(first));
    await setGate(GateMode.GATE_MODE_QUARANTINE);
    const worker = await TestWorker.start(coordinator, offering(retyped));
    expect(worker.registered.warnings).toEqual([expect.stringContaining("is in quarantine")]);
    expect((await register(retyped)).warnings).toEqual([expect.stringContaining("is in quarantine")]);
    await coordinator.registry.catalogue.refresh();
    expect(laneOf(first)).toBeDefined();
    expect(laneOf(retyped)).toBeUndefined();
    const plan = await coordinator.registry.plans.current(1, priceMethod);
    expect(plan?.contract).toBe(fingerprintOf(first));
    const described = await unaryCall(coordinator.client, coordinator.client.describeAction, {
      namespace,
      method: priceMethod,
    });
    expect(described.action?.contract).toBe(fingerprintOf(first));

    const { decision } = await allow(retyped, "the shop moved");
    expect(decision).toMatchObject({ reason: "the shop moved", violations: [{ subject: "shop.v1.Order.total" }] });
    expect(laneOf(retyped)).toBeDefined();
    await old.leave();
    await waitFor("new work to go to the allowed revision", async () => {
      const next = await coordinator.registry.plans.current(1, priceMethod);
      return next?.contract === fingerprintOf(retyped);
    });
    await worker.leave();
  });

  it("compares with the newest revision that is not in quarantine", async () => {
    await register(first);
    await setGate(GateMode.GATE_MODE_QUARANTINE);
    await register(retyped);
    expect((await check(grown)).judgements).toMatchObject([
      { verdict: ContractVerdict.CONTRACT_VERDICT_COMPATIBLE, baseRevision: 1 },
    ]);
  });

  it("lets one revision pass that was allowed beforehand, for a reason", async () => {
    await register(first);
    await expect(allow(retyped, "  ")).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
    await allow(retyped, "agreed with billing");
    expect((await register(retyped)).warnings).toEqual([expect.stringContaining("(agreed with billing)")]);
    expect(await refusal(shop({ order: "bool total = 2;" }))).toMatchObject({ reason: "CONTRACT_BREAKING" });
  });

  it("answers a dry run for each contract, and stores nothing", async () => {
    expect((await check(first)).judgements).toMatchObject([{ verdict: ContractVerdict.CONTRACT_VERDICT_NEW }]);
    await register(first);
    const verdicts = async (set: Buffer) => (await check(set)).judgements.map((one) => one.verdict);
    expect(await verdicts(first)).toEqual([ContractVerdict.CONTRACT_VERDICT_KNOWN]);
    expect(await verdicts(grown)).toEqual([ContractVerdict.CONTRACT_VERDICT_COMPATIBLE]);
    expect(await verdicts(retyped)).toEqual([ContractVerdict.CONTRACT_VERDICT_REFUSED]);
    await setGate(GateMode.GATE_MODE_QUARANTINE);
    expect(await check(retyped)).toMatchObject({
      mode: GateMode.GATE_MODE_QUARANTINE,
      judgements: [{ verdict: ContractVerdict.CONTRACT_VERDICT_QUARANTINED }],
    });
    await putChain(billChain("shop.v1.ShopChains/Price"));
    expect(await revisions()).toEqual([fingerprintOf(first)]);
  });

  it("asks for a reason where a gate is opened, and for a mode", async () => {
    await expect(setGate(GateMode.GATE_MODE_ALLOW)).rejects.toMatchObject({
      fieldViolations: [{ field: "reason", description: "must say why: it is recorded" }],
    });
    await expect(setGate(GateMode.GATE_MODE_UNSPECIFIED, "x")).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
    expect((await getGate()).gate).toMatchObject({ mode: GateMode.GATE_MODE_REFUSE, changedAt: undefined });
  });

  it("judges registrations that meet one after the other: two breaks of one base can't both pass", async () => {
    await register(first);
    const sets = ["int32", "int64", "bool", "bytes"].map((type) => shop({ request: `${type} extra = 2;` }));
    const answers = await Promise.allSettled(sets.map(register));
    expect(answers.filter((answer) => answer.status === "fulfilled")).toHaveLength(1);
    expect(await revisions()).toHaveLength(2);
  });

  it("says which chains use a field, named in full or in part", async () => {
    await register(first);
    await putChain();
    await putChain(billChain("shop.v1.Shop/Note", "note", "string"));
    const find = (field: string) =>
      unaryCall(coordinator.contracts, coordinator.contracts.findFieldUses, { namespace, field });
    const readers = async (field: string) => (await find(field)).uses.map((use) => `${use.chain} ${use.path}`);
    for (const name of ["shop.v1.Order.total", "Order.total"]) {
      expect(await readers(name)).toEqual(["shop.v1.Shop/Bill output.value"]);
    }
    expect(await readers("Order")).toEqual(["shop.v1.Shop/Bill output.value", "shop.v1.Shop/Note output.value"]);
    expect(await readers("Order.discount")).toEqual([]);
    expect(await readers("PriceRequest.id")).toEqual([
      "shop.v1.Shop/Bill steps[0].input.id",
      "shop.v1.Shop/Note steps[0].input.id",
    ]);
    expect(await find("total")).toMatchObject({ chains: 2, truncated: false });
    await expect(find("not a name")).rejects.toMatchObject({ reason: "ARGUMENT_INVALID" });
  });
});
