/**
 * One coordinator of a simulated mesh: the real engine room over the model database and the simulated broker.
 *
 * It dies as processes do: between any two of its effects, before or after a statement took effect, and from then on nothing of it reaches
 * anybody. A statement under way when it dies may still take effect.
 */
import { StartStep } from "@taskmesh/proto";
import { type CompletionDelivery, createLogger, DbClock } from "@taskmesh/runtime";
import { createEngineRoom, type EngineRoom } from "../../coordinator/src/pipeline/engine-room.js";
import type { LaneState } from "../../coordinator/src/pipeline/ports.js";
import type { RunStore } from "../../coordinator/src/store/run-store.js";
import type { Inbox } from "./bus.js";
import { createLauncher } from "./launcher.js";
import type { Mesh } from "./mesh.js";
import type { Doors } from "./model-store.js";

const lane = { namespaceId: 1, queueId: 1, laneId: 1 };
const log = createLogger("simulation", { level: "silent" });

export class SimCoordinator implements Inbox {
  readonly id: string;
  readonly room: EngineRoom;
  alive = true;
  diedAtMs = 0;
  /** Coordinators whose completions it takes, its own included. */
  readonly #addressees: Set<string>;
  readonly #mesh: Mesh;
  readonly #listeners: (() => void)[] = [];
  /** Effects that it still performs before it dies; undefined: it lives on. */
  #effectsLeft: number | undefined;

  constructor(mesh: Mesh, id: string) {
    this.#mesh = mesh;
    this.id = id;
    this.#addressees = new Set([id]);
    const { world } = mesh;
    // Its host's clock is wrong and drifts; what the database says counts.
    const drift = 1 + (world.random.next() - 0.5) * 1e-4;
    const clock = new DbClock(world.nowMs + world.random.int(-60_000, 60_000), () => world.elapsedMs * drift);
    clock.observe(world.nowMs);
    const store = this.#store(mesh.store.doors(() => mesh.freeSlots()));
    this.room = createEngineRoom({
      commits: store,
      store,
      carrier: { publishStart: (start, done) => this.#publish(start, done) },
      catalogue: {
        laneFor: () => this.#laneState(),
        liveLanes: () => {
          const state = this.#laneState();
          return state ? [{ namespaceId: 1, taskQueue: "test", state, contracts: mesh.callees }] : [];
        },
        onChange: (listener) => void this.#listeners.push(listener),
        coordinators: () => mesh.live().map((coordinator) => coordinator.id),
      },
      plans: {
        current: async (_namespaceId, method) => mesh.planOf(method),
        pinned: async (_namespaceId, method) => mesh.planOf(method),
      },
      launcher: createLauncher(mesh.chains[0]!, mesh.store.payloads),
      clock,
      coordinatorId: id,
      log,
      meters: silentMeters,
    });
    this.room.start();
    mesh.bus.inboxes.add(this);
  }

  addressees(): ReadonlySet<string> {
    return this.#addressees;
  }

  take(delivery: CompletionDelivery): void {
    this.#mesh.world.after(this.#wayMs(), () => {
      if (this.alive) this.room.listener.onCompletions(delivery);
    });
  }

  adopt(id: string): void {
    this.#addressees.add(id);
  }

  lanesChanged(): void {
    for (const listener of this.#listeners) listener();
  }

  wiped(): void {
    if (this.alive) this.room.listener.onWiped();
  }

  /** Dies after so many more effects, or soon if it has none to perform. */
  dieAfter(effects: number): void {
    this.#effectsLeft = effects;
    this.#mesh.world.after(5_000, () => this.die());
  }

  die(): void {
    if (!this.alive) return;
    this.alive = false;
    this.diedAtMs = this.#mesh.world.nowMs;
    this.#mesh.bus.inboxes.delete(this);
    this.#mesh.world.note(() => `${this.id} dies`);
    this.#mesh.died();
  }

  #laneState(): LaneState | undefined {
    const slots = this.#mesh.slots();
    return slots === 0
      ? undefined
      : { lane, window: Math.max(1, Math.ceil((2 * slots) / this.#mesh.live().length)), packMax: 1 };
  }

  readonly #publish: Publish = (start, done) => {
    const { world, bus, ledger } = this.#mesh;
    if (this.#effectsLeft !== undefined && this.#effectsLeft-- <= 0) this.die();
    if (!this.alive) return;
    const decoded = StartStep.decode(start.bytes);
    this.#mesh.check(() => ledger.published(decoded, this.#mesh.stepIndexOf(decoded)));
    world.note(
      () => `${this.id} sends ${this.#mesh.nameOf(decoded.runId)} ${decoded.stepId} attempt ${decoded.attempt}`,
    );
    bus.publishStart(start, (outcome) => {
      if (outcome.kind === "refused") ledger.poisoned(decoded.runId, this.#mesh.stepIndexOf(decoded));
      if (this.alive) done(outcome);
    });
  };

  /** The database over a connection that may break at any point. */
  #store(doors: Doors): RunStore {
    const call = async (name: string, run: () => unknown): Promise<unknown> => {
      const { world, trouble } = this.#mesh;
      if (!this.alive) return never();
      await world.pause(this.#wayMs());
      // Dead or not, what is under way may arrive.
      if (!this.alive && world.random.chance(0.5)) return never();
      if (name === "commitBatch" && trouble.happens("deadlock"))
        throw Object.assign(new Error(`${name}: deadlock`), { code: "40P01" });
      if (trouble.happens("databaseLost")) throw new Error(`${name}: the connection was lost`);
      if (trouble.happens("databaseLate")) {
        world.after(world.random.int(1, 3_000), () => this.#mesh.quietly(run));
        throw new Error(`${name}: no answer in time`);
      }
      const answer = this.#mesh.check(run);
      world.note(() => `${this.id} ${name}`);
      if (trouble.happens("databaseUnknown")) throw new Error(`${name}: the connection was lost after all`);
      await world.pause(this.#wayMs());
      return this.alive ? answer : never();
    };
    const names = Object.keys(doors) as (keyof Doors)[];
    const wrapped = names.map((name) => {
      const door = doors[name] as (...args: unknown[]) => unknown;
      return [name, (...args: unknown[]) => call(name, () => door(...args))];
    });
    return Object.fromEntries(wrapped) as RunStore;
  }

  #wayMs(): number {
    const { world, trouble } = this.#mesh;
    return trouble.happens("slow") ? world.random.int(0, 2_000) : world.random.int(0, 3);
  }
}

const nothing = (): void => {};
const silentMeters: Parameters<typeof createEngineRoom>[0]["meters"] = {
  settled: nothing,
  garbage: nothing,
  conflicts: nothing,
  committed: nothing,
  commitFailed: nothing,
  written: nothing,
  sent: nothing,
  wiped: nothing,
};

type Publish = Parameters<typeof createEngineRoom>[0]["carrier"]["publishStart"];

/** A dead process answers nothing. */
const never = <T>(): Promise<T> => new Promise(() => {});
