/**
 * What happens to a mesh from outside, at random instants: callers, crashes, wipes. A new kind of step that something from outside moves on
 * (a signal, an answer of a person) adds it here.
 */
import { value } from "../../coordinator/src/engine/plan-fixture.js";
import type { Operation } from "../../coordinator/src/engine/run-event.js";
import { isFinal, RunStatus } from "../../coordinator/src/engine/run-state.js";
import type { StartCommand } from "../../coordinator/src/pipeline/ports.js";
import { formText, signalText } from "./kinds.js";
import type { Mesh } from "./mesh.js";

interface Happening {
  weight: number;
  /** Whether it goes wrong, rather than being what people do. */
  fault: boolean;
  happen(mesh: Mesh): void;
}

export const happenings: readonly Happening[] = [
  { weight: 6, fault: false, happen: (mesh) => void startRun(mesh, false) },
  { weight: 2, fault: false, happen: (mesh) => void startRun(mesh, true) },
  { weight: 1.5, fault: false, happen: (mesh) => void cancelRun(mesh) },
  { weight: 6, fault: false, happen: (mesh) => void signalRun(mesh) },
  { weight: 4, fault: false, happen: (mesh) => void answerForm(mesh) },
  { weight: 1.5, fault: false, happen: (mesh) => void pauseRun(mesh) },
  { weight: 1.5, fault: false, happen: (mesh) => void mendRun(mesh) },
  { weight: 1.5, fault: true, happen: killCoordinator },
  { weight: 1, fault: true, happen: (mesh) => mesh.addCoordinator() },
  { weight: 1, fault: true, happen: killWorker },
  { weight: 1, fault: true, happen: (mesh) => mesh.addWorker() },
  { weight: 1, fault: true, happen: pauseWorker },
  { weight: 0.5, fault: true, happen: wipe },
  { weight: 0.5, fault: true, happen: mistakenTakeOver },
  { weight: 0.5, fault: true, happen: loseBound },
];

/** Times that a caller asks again when it got no answer. */
const asksMax = 30;

/** A caller starts a run; with a key it asks until it has an answer, and twice at once. */
export async function startRun(mesh: Mesh, keyed: boolean): Promise<void> {
  const { world, ledger } = mesh;
  const chain = world.random.pick(mesh.chains);
  const input = value(`in${world.random.int(0, 99)}`);
  const key = keyed ? `key-${world.tasks}` : undefined;
  const command: StartCommand = {
    namespaceId: 1,
    namespace: "default",
    plan: chain.plan,
    input,
    labels: {},
    priority: 0,
    ...(key === undefined ? {} : { idempotencyKey: key }),
  };
  const once = async (): Promise<void> => {
    for (let asks = 0; asks < asksMax; asks++) {
      const started = await mesh.ask((room) => room.intake.startRun(command));
      if (started) {
        world.note(() => `${mesh.nameOf(started.runId)} of ${chain.plan.method} was accepted`);
        mesh.quietly(() => ledger.started(started.runId, key));
        return;
      }
      if (!keyed) return;
      await world.pause(1_000);
    }
  };
  await Promise.all(keyed ? [once(), once()] : [once()]);
}

const openRuns = (mesh: Mesh, is: (status: RunStatus) => boolean): string[] =>
  [...mesh.store.runs.values()].filter(({ status }) => !isFinal(status) && is(status)).map(({ id }) => id);

/** Somebody holds a run, and mostly lets it go on later. */
async function pauseRun(mesh: Mesh): Promise<void> {
  const { world } = mesh;
  const open = openRuns(mesh, () => true);
  if (open.length === 0) return;
  const runId = world.random.pick(open);
  await operate(mesh, runId, { kind: "pause" });
  if (world.random.chance(0.2)) return;
  await world.pause(world.random.int(0, 20_000));
  await operate(mesh, runId, { kind: "resume" });
}

/** An operator has every broken step of a run tried again. */
async function mendRun(mesh: Mesh): Promise<void> {
  const broken = openRuns(mesh, (status) => status === RunStatus.RUN_STATUS_BROKEN);
  if (broken.length > 0) await operate(mesh, mesh.world.random.pick(broken), { kind: "retry", steps: [] });
}

async function operate(mesh: Mesh, runId: string, operation: Operation): Promise<void> {
  const event = { kind: "operate" as const, operation, by: "somebody", reason: "" };
  const done = await mesh.ask((room) => room.intake.operate(1, runId, event).catch(() => undefined));
  if (done !== undefined) mesh.world.note(() => `${mesh.nameOf(runId)}: ${operation.kind}, ${done}`);
}

/** Times that a broken run is tried again: one whose branches have all failed is broken again at once. */
const mendsMax = 10;

/** In a calm mesh no run is left paused, and none broken that may be mended. */
export function mendAll(mesh: Mesh, mended = new Map<string, number>()): void {
  for (const runId of openRuns(mesh, (status) => status === RunStatus.RUN_STATUS_PAUSED))
    void operate(mesh, runId, { kind: "resume" });
  for (const runId of openRuns(mesh, (status) => status === RunStatus.RUN_STATUS_BROKEN)) {
    const times = mended.get(runId) ?? 0;
    mended.set(runId, times + 1);
    if (times < mendsMax) void operate(mesh, runId, { kind: "retry", steps: [] });
  }
  mesh.world.after(5_000, () => mendAll(mesh, mended));
}

async function cancelRun(mesh: Mesh): Promise<void> {
  const open = openRuns(mesh, () => true);
  if (open.length === 0) return;
  const runId = mesh.world.random.pick(open);
  const done = await mesh.ask(async (room) => {
    await room.intake.cancelRun(1, runId, "enough");
    return "cancelled";
  });
  if (done === undefined) return;
  mesh.world.note(() => `${mesh.nameOf(runId)} was cancelled`);
  // How it ends was decided before: it only waits for its children.
  const { closing, cancel } = mesh.store.load(runId)!.run;
  if (closing && !cancel) return;
  mesh.ledger.cancelled(runId);
}

/** Somebody sends a signal and, since the answer may be lost, sends it again. */
async function signalRun(mesh: Mesh): Promise<void> {
  const open = [...mesh.store.runs.values()]
    .filter(({ status }) => !isFinal(status))
    .map(({ id, method }) => ({ id, method }));
  if (open.length === 0) return;
  const { id: runId, method } = mesh.world.random.pick(open);
  const { steps } = mesh.planOf(method);
  const awaited = steps.filter(({ wait }) => wait?.kind === "signal");
  if (awaited.length === 0) return;
  const stepId = mesh.world.random.pick(awaited).id;
  const message = {
    mailbox: stepId,
    name: stepId,
    key: `${stepId}-${mesh.world.tasks}`,
    value: value(signalText(stepId)),
  };
  for (let asks = 0; asks < 2; asks++) {
    const sent = await mesh.ask((room) => room.intake.send(1, runId, message).catch(() => undefined));
    if (sent) mesh.world.note(() => `${mesh.nameOf(runId)} was sent a signal for ${stepId}`);
    await mesh.world.pause(500);
  }
}

/** Forms that wait for somebody. */
function openForms(mesh: Mesh): { runId: string; stepId: string; claimedBy: string | undefined }[] {
  return openRuns(mesh, () => true).flatMap((runId) => {
    const { run, method } = mesh.store.load(runId)!;
    return mesh.planOf(method).steps.flatMap(({ id, index, wait }) => {
      const open = run.steps[index]!.wait;
      return wait?.kind === "human" && open ? [{ runId, stepId: id, claimedBy: open.claimedBy }] : [];
    });
  });
}

/** Somebody claims a form, lets it go again or fills it in, twice where the answer is lost. */
async function answerForm(mesh: Mesh): Promise<void> {
  const { random } = mesh.world;
  const forms = openForms(mesh);
  if (forms.length === 0) return;
  const { runId, stepId } = random.pick(forms);
  const person = `person-${random.int(1, 2)}`;
  const kind = random.pick(["claim", "release", "complete", "complete"] as const);
  const act = kind === "complete" ? { kind, value: value(formText(stepId)) } : { kind };
  const asks = random.int(1, 2);
  for (let ask = 0; ask < asks; ask++)
    await mesh.ask((room) => room.intake.assignment(1, runId, { stepId, person, act }).catch(() => undefined));
}

/** In a calm mesh every form is filled in, by whoever has claimed it. */
export function answerAll(mesh: Mesh): void {
  for (const { runId, stepId, claimedBy = "somebody" } of openForms(mesh)) {
    const act = { kind: "complete" as const, value: value(formText(stepId)) };
    const about = { stepId, person: claimedBy, act };
    void mesh.ask((room) => room.intake.assignment(1, runId, about).catch(() => undefined));
  }
  mesh.world.after(5_000, () => answerAll(mesh));
}

/** Every signal that an open run may wait for is sent, again and again: in a calm mesh nobody is kept waiting. */
export function signalAll(mesh: Mesh): void {
  for (const { id: runId, method, status } of mesh.store.runs.values()) {
    if (isFinal(status)) continue;
    for (const { id, wait } of mesh.planOf(method).steps) {
      if (wait?.kind !== "signal") continue;
      const message = { mailbox: id, name: id, key: `${id}-calm`, value: value(signalText(id)) };
      void mesh.ask((room) => room.intake.send(1, runId, message).catch(() => undefined));
    }
  }
  mesh.world.after(5_000, () => signalAll(mesh));
}

function killCoordinator(mesh: Mesh): void {
  const live = mesh.live();
  if (live.length === 0) return;
  mesh.world.random.pick(live).dieAfter(mesh.world.random.int(0, 6));
}

function killWorker(mesh: Mesh): void {
  const live = mesh.workers.filter(({ alive }) => alive);
  if (live.length < 2) mesh.world.after(mesh.world.random.int(1_000, 20_000), () => mesh.addWorker());
  if (live.length === 0) return;
  mesh.world.random.pick(live).die();
  for (const coordinator of mesh.live()) coordinator.lanesChanged();
}

function pauseWorker(mesh: Mesh): void {
  const live = mesh.workers.filter(({ alive }) => alive);
  if (live.length > 0) mesh.world.random.pick(live).pause(mesh.world.random.int(2_000, 40_000));
}

function wipe(mesh: Mesh): void {
  mesh.world.note(() => "the broker loses everything");
  mesh.bus.wipe();
  mesh.world.after(mesh.world.random.int(0, 2_000), () => {
    for (const coordinator of mesh.live()) coordinator.wiped();
    for (const worker of mesh.workers) if (worker.alive) worker.republish();
  });
}

/** A coordinator takes over one that lives: it was only slow. */
function mistakenTakeOver(mesh: Mesh): void {
  const live = mesh.live();
  if (live.length < 2) return;
  const [heir, slow] = [live[0]!, live[1]!];
  heir.adopt(slow.id);
  void heir.room.recovery.takeOver(slow.id).catch(() => {});
}

/** A bound attempt is given up though its worker lives: its session was only slow. */
function loseBound(mesh: Mesh): void {
  const bound = [...mesh.store.bindings.values()];
  if (bound.length === 0) return;
  const { runId, stepId, item, attempt, lease } = mesh.world.random.pick(bound);
  void mesh.ask((room) => room.intake.lose({ runId, stepId, item, attempt, lease }, "it seemed gone"));
}
