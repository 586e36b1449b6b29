/**
 * Processes that die, hang or lose their data while 2,000 runs of chain5 are under way. After each fault heals the mesh goes on within ten
 * seconds, and in the end every accepted run has SUCCEEDED with the right value and exactly one result per step.
 */
import { describe, expect, it, type TestContext } from "vitest";
import { allEnded, endedRuns, judge, type Mesh, startMany, startMesh } from "../fixtures/mesh.js";
import { waitFor } from "../fixtures/process.js";

const runs = 2_000;
const resumeMs = 10_000;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Starts the load on a mesh that ends with the test, and answers how to wait for the load's end and judge it. */
async function underLoad(
  { onTestFinished }: TestContext,
  delayMs: number,
  options: { coordinators: number; workers: number },
): Promise<{ mesh: Mesh; finish(): Promise<void> }> {
  const started = await startMesh({ ...options, workerEnv: { DELAY_MS: String(delayMs), SLOTS: "50" } });
  onTestFinished(() => started.stop());
  const accepted = startMany(started, runs);
  accepted.catch(() => {});
  await waitFor("the first runs to end", async () => (await endedRuns(started)) > 20, 60_000);
  return {
    mesh: started,
    async finish() {
      const ids = await accepted;
      await allEnded(started, runs, 180_000);
      expect(await judge(started, ids)).toEqual({ runs, succeeded: runs, wrong: 0, oddSteps: 0 });
    },
  };
}

/** Work goes on within the bound: more runs end than had before. The load must not be over, or the fault met nothing. */
async function resumes(on: Mesh, within = resumeMs): Promise<void> {
  const before = await endedRuns(on);
  expect(before, "the load was over before the fault").toBeLessThan(runs);
  await waitFor("runs to end after the fault", async () => (await endedRuns(on)) > before, within, 100);
}

describe("a mesh under load", () => {
  it("loses nothing when a worker, a coordinator, nats-server and Postgres are killed one after another", {
    timeout: 400_000,
  }, async (context) => {
    const load = await underLoad(context, 180, { coordinators: 2, workers: 2 });
    const { workers, coordinators, nats, postgres } = load.mesh;
    await workers[0]!.kill();
    await resumes(load.mesh);
    await workers[0]!.start();
    await coordinators[0]!.kill();
    await resumes(load.mesh);
    await coordinators[0]!.start();
    await nats.kill();
    await nats.start();
    await resumes(load.mesh);
    await postgres.kill();
    await postgres.start();
    await resumes(load.mesh);
    await load.finish();
  });

  it("loses nothing when nats-server loses its data directory", { timeout: 400_000 }, async (context) => {
    const load = await underLoad(context, 50, { coordinators: 2, workers: 2 });
    await load.mesh.nats.stop();
    await load.mesh.nats.wipe();
    await load.mesh.nats.start();
    await resumes(load.mesh);
    await load.finish();
  });

  it("loses nothing while a random process is killed every few seconds", { timeout: 400_000 }, async (context) => {
    const load = await underLoad(context, 400, { coordinators: 2, workers: 2 });
    const { workers, coordinators, nats, postgres } = load.mesh;
    const seed = Date.now() % 100_000;
    console.log(`seed ${seed}`);
    let state = seed;
    const random = (below: number): number => {
      state = (state * 1_103_515_245 + 12_345) % 2_147_483_648;
      return Math.floor((state / 2_147_483_648) * below);
    };
    const victims = [...workers, ...coordinators, nats, postgres];
    let kills = 0;
    for (let round = 0; round < 8 && (await endedRuns(load.mesh).catch(() => 0)) < runs - 100; round++) {
      const victim = victims[random(victims.length)]!;
      await victim.kill();
      kills += 1;
      await pause(500 + random(1_500));
      await victim.start();
      await pause(1_000 + random(2_000));
    }
    expect(kills).toBeGreaterThan(2);
    await load.finish();
  });

  // Side by side, since both mostly wait.
  it.concurrent("gives a worker's attempts away while it is paused for 30 s, and refuses what it reports afterwards", {
    timeout: 400_000,
  }, async (context) => {
    const load = await underLoad(context, 150, { coordinators: 1, workers: 2 });
    const paused = pause(30_000);
    load.mesh.workers[0]!.pause();
    await resumes(load.mesh);
    await paused;
    load.mesh.workers[0]!.resume();
    await load.finish();
  });

  it.concurrent("goes on without a coordinator that is paused for 60 s, which then does no harm", {
    timeout: 400_000,
  }, async (context) => {
    const load = await underLoad(context, 200, { coordinators: 2, workers: 2 });
    const paused = pause(60_000);
    load.mesh.coordinators[0]!.pause();
    await resumes(load.mesh, 25_000);
    await paused;
    load.mesh.coordinators[0]!.resume();
    await load.finish();
  });
});
