/** A simulated mesh: coordinators, workers, broker, database, and what stands for the registry: who lapsed, who takes over. */
import type { StartStep } from "@taskmesh/proto";
import { innerOf, innerPath } from "../../coordinator/src/contracts/compile-inner.js";
import { childSession } from "../../coordinator/src/engine/children.js";
import type { ChainPlan } from "../../coordinator/src/engine/plan.js";
import type { EngineRoom } from "../../coordinator/src/pipeline/engine-room.js";
import { Bus } from "./bus.js";
import { type Chain, drawChain } from "./chains.js";
import { SimCoordinator } from "./coordinator.js";
import type { StepKind } from "./kinds.js";
import { Ledger } from "./ledger.js";
import { ModelStore } from "./model-store.js";
import { Trouble } from "./trouble.js";
import { SimWorker } from "./worker.js";
import type { World } from "./world.js";

/** A silent session or coordinator is given up after this. */
const lapseMs = 15_000;
const callLimitMs = 5_000;
const unlistedMs = 12_000;

export class Mesh {
  readonly trouble: Trouble;
  readonly ledger = new Ledger();
  readonly store: ModelStore;
  readonly bus: Bus;
  readonly chains: readonly Chain[];
  /** Everybody who ever was. */
  readonly coordinators: SimCoordinator[] = [];
  readonly workers: SimWorker[] = [];
  /** The first invariant that did not hold. */
  violation: unknown;
  readonly #chainOf = new Map<string, Chain>();
  readonly #unlisted = new Map<string, number>();
  #adopted = 0;

  constructor(readonly world: World) {
    this.trouble = new Trouble(world.random);
    const first = drawChain(world.random, 0);
    this.chains = world.random.chance(0.55) ? [first] : [first, drawChain(world.random, 1, first)];
    for (const chain of this.chains) this.#chainOf.set(chain.plan.method, chain);
    this.store = new ModelStore(world, this.ledger, (method) => this.planOf(method));
    this.bus = new Bus(world, this.trouble);
    for (let count = world.random.int(1, 3); count > 0; count--) this.addCoordinator();
    for (let count = world.random.int(1, 3); count > 0; count--) this.addWorker();
    this.#everySecond();
  }

  addCoordinator(): void {
    this.coordinators.push(new SimCoordinator(this, `c${this.coordinators.length + 1}`));
  }

  addWorker(): void {
    this.workers.push(new SimWorker(this, `w${this.workers.length + 1}`, this.world.random.int(1, 4)));
    for (const coordinator of this.live()) coordinator.lanesChanged();
  }

  live(): SimCoordinator[] {
    return this.coordinators.filter(({ alive }) => alive);
  }

  /** A mesh without a coordinator gets one: nothing could happen otherwise. */
  died(): void {
    if (this.live().length === 0) this.world.after(this.world.random.int(500, 5_000), () => this.addCoordinator());
  }

  slots(): number {
    return this.workers.reduce((sum, worker) => sum + (worker.alive ? worker.slots : 0), 0);
  }

  freeSlots(): Map<number, number> {
    return new Map([[1, this.workers.reduce((sum, worker) => sum + worker.free(), 0)]]);
  }

  get callees(): string[] {
    return this.chains.flatMap(({ plan }) => plan.steps.map(({ method, contract }) => `${method}@${contract}`));
  }

  /** The chain that a run is of; of a run that stands for an item, the part of it. */
  chainOf(runId: string): Chain {
    const { method } = this.store.runs.get(runId)!;
    const whole = this.#chainOf.get(method);
    return whole ?? { plan: this.planOf(method), kinds: [], expected: () => undefined };
  }

  planOf(method: string): ChainPlan {
    const { chain, path } = innerPath(method);
    return innerOf(this.#chainOf.get(chain)!.plan, path);
  }

  stepIndexOf({ runMethod, stepId }: StartStep): number {
    return this.planOf(runMethod).steps.findIndex(({ id }) => id === stepId);
  }

  kindOf(start: StartStep): StepKind {
    const { plan, kinds } = this.#chainOf.get(innerPath(start.runMethod).chain)!;
    return kinds[plan.steps.findIndex(({ id }) => id === start.stepId)]!;
  }

  /** A short name of a run, the same in every repetition of the seed. */
  nameOf(runId: string): string {
    return `r${[...this.store.runs.keys()].indexOf(runId) + 1}`;
  }

  /** Does it, and keeps the violation that it finds: what is thrown inside a coordinator would be taken for an error of the database. */
  check<T>(run: () => T): T {
    try {
      return run();
    } catch (error) {
      if ((error as { code?: string }).code === undefined) this.violation ??= error;
      throw error;
    }
  }

  quietly(run: () => unknown): void {
    try {
      this.check(run);
    } catch {
      // Its caller has given up; a violation is kept.
    }
  }

  /** Asks some coordinator; undefined: no answer came. */
  async ask<T>(call: (room: EngineRoom) => Promise<T>): Promise<T | undefined> {
    const { world } = this;
    const live = this.live();
    if (live.length === 0 || this.trouble.happens("callLost")) return undefined;
    const coordinator = world.random.pick(live);
    await world.pause(world.random.int(0, 3));
    const answer = call(coordinator.room).catch(() => undefined);
    const found = await Promise.race([answer, world.pause(callLimitMs).then(() => undefined)]);
    return coordinator.alive ? found : undefined;
  }

  /** The registry's rounds: lapsed coordinators are taken over, attempts of silent workers given up. */
  #everySecond(): void {
    const { world } = this;
    world.after(1_000, () => {
      this.bus.pump();
      for (const dead of this.coordinators)
        if (!dead.alive && world.nowMs - dead.diedAtMs > lapseMs) this.#takeOver(dead.id);
      for (const binding of this.store.bindings.values()) this.#judge(binding);
      this.#everySecond();
    });
  }

  #takeOver(id: string): void {
    const heirs = this.live();
    if (heirs.length === 0) return;
    // Any number of them may do it at once.
    for (const heir of heirs) {
      heir.adopt(id);
      const left = this.store.effectBatches.get(id)?.size ?? 0;
      if (left > 0 && (this.#adopted++ % 3 === 0 || this.world.random.chance(0.3)))
        void heir.room.recovery.takeOver(id).catch(() => {});
    }
  }

  #judge({ runId, stepId, item, attempt, lease, session, boundAtMs }: Binding): void {
    const { world } = this;
    if (session === childSession) return;
    const worker = this.workers.find((one) => one.session === session)!;
    const silent = !worker.alive || worker.pausedUntilMs > world.nowMs;
    const sinceMs = worker.alive ? worker.pausedAtMs : worker.diedAtMs;
    const lapsed = silent && world.nowMs - sinceMs > lapseMs;
    const listed = worker.alive && (worker.held.has(lease) || worker.reporting.has(lease));
    const since = listed ? undefined : (this.#unlisted.get(lease) ?? world.nowMs);
    if (since === undefined) this.#unlisted.delete(lease);
    else this.#unlisted.set(lease, since);
    const unlisted = since !== undefined && world.nowMs - Math.max(since, boundAtMs) > unlistedMs;
    if (!lapsed && !unlisted) return;
    const ref = { runId, stepId, item, attempt, lease };
    void this.ask((room) => room.intake.lose(ref, lapsed ? "its worker went silent" : "its worker does not run it"));
  }
}

type Binding = Parameters<ModelStore["bindings"]["set"]>[1];
