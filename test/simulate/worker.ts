/**
 * A worker of a simulated mesh, which keeps the protocol of one: it claims what may have been delivered before, beats, acks a start when its
 * completion is stored or its attempt bound, reports again until the report is stored. Its handlers compute what chains.ts says, or misbehave.
 */
import { CompleteStep, type Failure, type StartStep } from "@taskmesh/proto";
import { sha256 } from "@taskmesh/runtime";
import type { Puller } from "./bus.js";
import { encode, outputOf } from "./kinds.js";
import type { Mesh } from "./mesh.js";
import { poison } from "./model-store.js";

const beatMs = 5_000;
const reportAgainMs = 5 * 60_000;

interface Held {
  start: StartStep;
  startedAtMs: number;
  /** Last sign of life of the handler. */
  reportedAtMs: number;
  ack(): void;
  /** Time that the handler asked for, since it began; 0: it has not asked. */
  extendedMs: number;
  /** The handler ended, or was told to stop. */
  over: boolean;
}

export class SimWorker implements Puller {
  readonly session: string;
  alive = true;
  diedAtMs = 0;
  /** Until then it does nothing, as a stopped process. */
  pausedUntilMs = 0;
  pausedAtMs = 0;
  /** By lease. */
  readonly held = new Map<string, Held>();
  /** Leases whose completion is on its way. */
  readonly reporting = new Set<string>();
  readonly #sent: { reportTo: string; completion: CompleteStep; atMs: number }[] = [];
  readonly #mesh: Mesh;
  readonly slots: number;
  #taken = 0;

  constructor(mesh: Mesh, session: string, slots: number) {
    this.#mesh = mesh;
    this.session = session;
    this.slots = slots;
    mesh.bus.pullers.add(this);
    mesh.world.after(beatMs, () => void this.#beat());
  }

  free(): number {
    return this.alive && !this.#paused() ? this.slots - this.#taken : 0;
  }

  take(start: StartStep, redelivered: boolean, ack: () => void): void {
    const { world } = this.#mesh;
    const known = this.held.get(start.lease);
    // A repetition of what it has in hand is swallowed.
    if (known || this.reporting.has(start.lease)) return;
    this.#taken += 1;
    world.after(world.random.int(0, 3), () => void this.#begin(start, redelivered, ack));
  }

  die(): void {
    this.alive = false;
    this.diedAtMs = this.#mesh.world.nowMs;
    this.held.clear();
    this.#mesh.bus.pullers.delete(this);
    this.#mesh.world.note(() => `${this.session} dies`);
  }

  /** Stops the process for a while. */
  pause(ms: number): void {
    const { world } = this.#mesh;
    this.pausedAtMs = world.nowMs;
    this.pausedUntilMs = world.nowMs + ms;
    world.note(() => `${this.session} is paused for ${ms} ms`);
  }

  /** The broker lost its messages: what was reported lately is reported again. */
  republish(): void {
    const { world, bus } = this.#mesh;
    for (const { reportTo, completion, atMs } of this.#sent)
      if (world.nowMs - atMs < reportAgainMs) bus.complete(reportTo, completion, () => {});
  }

  #paused(): boolean {
    return this.#mesh.world.nowMs < this.pausedUntilMs;
  }

  /** Resolves when the process runs. */
  async #awake(): Promise<void> {
    while (this.#paused()) await this.#mesh.world.pause(this.pausedUntilMs - this.#mesh.world.nowMs);
  }

  async #begin(start: StartStep, redelivered: boolean, ack: () => void): Promise<void> {
    let own = start;
    if (redelivered || start.exclusive) {
      const claimed = await this.#mesh.ask((room) => room.intake.claim(start, this.session));
      if (!this.alive) return;
      // Without an answer it is left to the broker, which delivers it again.
      if (claimed && "drop" in claimed) ack();
      if (!claimed || "drop" in claimed) {
        this.#taken -= 1;
        return;
      }
      own = claimed.start;
    }
    const { world, ledger } = this.#mesh;
    ledger.held(own.lease, this.session);
    world.note(() => `${this.session} runs ${this.#mesh.nameOf(own.runId)} ${own.stepId} attempt ${own.attempt}`);
    const nowMs = world.nowMs;
    const held: Held = { start: own, startedAtMs: nowMs, reportedAtMs: nowMs, ack, extendedMs: 0, over: false };
    this.held.set(own.lease, held);
    await this.#handle(held);
  }

  async #handle(held: Held): Promise<void> {
    const { world } = this.#mesh;
    let limitMs = held.start.startToCloseMs;
    const { wantedMs, asks } = this.#drawHandler(limitMs);
    // The handler shows signs of life, but for one that hangs.
    const alive = wantedMs !== Number.POSITIVE_INFINITY;
    for (let ranMs = 0; ranMs < Math.min(wantedMs, limitMs); ) {
      if (asks && held.extendedMs === 0 && ranMs >= asks.atMs) limitMs = this.#extend(held, ranMs + asks.moreMs);
      const partMs = Math.min(4_000, Math.min(wantedMs, limitMs) - ranMs);
      await world.pause(partMs);
      ranMs += partMs;
      await this.#awake();
      if (!this.alive || held.over) return;
      if (alive) held.reportedAtMs = world.nowMs;
    }
    if (wantedMs > limitMs) this.#report(held, failed("START_TO_CLOSE_TIMEOUT", true));
    else this.#report(held, this.#outcome(held.start));
  }

  /** How long the handler takes; and when it asks for more time, if it does, and for how much. Now and then that is too late, or too little. */
  #drawHandler(limitMs: number): { wantedMs: number; asks?: { atMs: number; moreMs: number } } {
    const { world, trouble } = this.#mesh;
    if (trouble.happens("hang")) return { wantedMs: Number.POSITIVE_INFINITY };
    if (!trouble.happens("long")) return { wantedMs: world.random.int(0, 800) };
    const wantedMs = world.random.int(1_000, 40_000);
    if (world.random.chance(0.5)) return { wantedMs };
    const moreMs = world.random.int(5_000, 60_000);
    return { wantedMs: wantedMs + moreMs / 2, asks: { atMs: world.random.int(0, Math.min(limitMs, 30_000)), moreMs } };
  }

  /** The attempt may run so long, since it began: the handler's own clock counts at once, and the mesh hears of it by the next beat. */
  #extend(held: Held, askedMs: number): number {
    held.extendedMs = Math.max(held.start.startToCloseMs, askedMs);
    this.#mesh.ledger.asked(held.start.lease, this.session, held.extendedMs);
    this.#mesh.world.note(() => `${this.session} asks for ${held.extendedMs} ms for ${held.start.stepId}`);
    return held.extendedMs;
  }

  #outcome(start: StartStep): CompleteStep["outcome"] {
    const { trouble, store } = this.#mesh;
    if (trouble.happens("attemptFails")) return failed("UNLUCKY", true);
    const kind = this.#mesh.kindOf(start);
    if (kind.doomed || trouble.happens("attemptFailsForGood")) return failed("HOPELESS", false);
    const { data } = start.input!;
    const bytes = data?.$case === "reference" ? store.payloads.get(data.value)! : (data?.value ?? new Uint8Array());
    let text = outputOf(start.stepId, new TextDecoder().decode(bytes));
    if (kind.counts) text = `${text}.${start.attempt}`;
    if (trouble.happens("badOutput")) text = "bad";
    if (text !== "bad" && !kind.large && trouble.happens("poison")) {
      this.#mesh.ledger.poisoned(start.runId, this.#mesh.stepIndexOf(start));
      text = poison;
    }
    const output = Buffer.from(encode(text));
    const value = kind.large
      ? ({ $case: "reference", value: store.putPayload(output) } as const)
      : ({ $case: "inline", value: output } as const);
    const payload = { contract: "c", keyId: "", sizeBytes: BigInt(output.length), sha256: sha256(output), data: value };
    return { $case: "output", value: payload };
  }

  #report(held: Held, outcome: CompleteStep["outcome"]): void {
    const { world } = this.#mesh;
    const { runId, stepId, item, attempt, lease, reportTo } = held.start;
    held.over = true;
    this.held.delete(lease);
    this.reporting.add(lease);
    const about = { runId, stepId, item, attempt, lease, sessionId: this.session };
    const executionMs = Math.round(world.nowMs - held.startedAtMs);
    const completion: CompleteStep = { ...CompleteStep.create(), ...about, outcome, executionMs };
    world.note(() => `${this.session} reports ${this.#mesh.nameOf(runId)} ${stepId} ${attempt}: ${outcome?.$case}`);
    this.#sent.push({ reportTo, completion, atMs: world.nowMs });
    this.#send(held, completion, world.nowMs + reportAgainMs);
    this.#taken -= 1;
  }

  #send(held: Held, completion: CompleteStep, untilMs: number): void {
    const { bus, world } = this.#mesh;
    bus.complete(held.start.reportTo, completion, (error) => {
      if (!this.alive) return;
      if (error && world.nowMs < untilMs) return this.#send(held, completion, untilMs);
      this.reporting.delete(held.start.lease);
      held.ack();
    });
  }

  async #beat(): Promise<void> {
    const { world, ledger } = this.#mesh;
    await this.#awake();
    if (!this.alive) return;
    world.after(beatMs, () => void this.#beat());
    for (const held of [...this.held.values()]) {
      const { start, startedAtMs, extendedMs } = held;
      const silentMs = world.nowMs - held.reportedAtMs;
      const verdict = await this.#mesh.ask((room) =>
        room.intake.bind(start, this.session, startedAtMs, silentMs, undefined, extendedMs),
      );
      if (verdict === "current" && extendedMs > 0) ledger.granted(start.lease, this.session, startedAtMs + extendedMs);
      if (!this.alive || held.over || verdict === undefined) continue;
      held.ack();
      if (verdict === "current") continue;
      this.#toldToStop(held, verdict);
    }
  }

  #toldToStop(held: Held, verdict: "stale" | "cancelling"): void {
    if (this.#mesh.trouble.happens("stubborn")) return;
    if (verdict === "cancelling") return this.#report(held, { $case: "cancelled", value: { message: "" } });
    held.over = true;
    this.held.delete(held.start.lease);
    this.#taken -= 1;
  }
}

function failed(reason: string, retryable: boolean): CompleteStep["outcome"] {
  const failure: Failure = { reason, message: "as the seed wants it", retryable, details: [], cause: undefined };
  return { $case: "failure", value: failure };
}
