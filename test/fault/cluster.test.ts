/**
 * A NATS cluster with three copies of each stream, two coordinators, three workers and one Postgres: nodes are killed and cut off in turn
 * while 5,000 runs go through. Dispatch resumes after each fault, and nothing is lost.
 */
import { EventKind } from "@taskmesh/proto";
import { afterEach, expect, it } from "vitest";
import { allEnded, endedRuns, judge, type Mesh, startMany, startMesh } from "../fixtures/mesh.js";
import { type NatsCluster, startNatsCluster } from "../fixtures/nats-cluster.js";
import { waitFor } from "../fixtures/process.js";

const runs = 5_000;
/** Eight seconds are usual: nodes of nats-server wait four to nine before they elect a new leader. */
const resumeMs = 30_000;

let mesh: Mesh | undefined;
let cluster: NatsCluster | undefined;
afterEach(async () => {
  await mesh?.stop();
  await cluster?.dispose();
});

const workers = 3;
const slots = 20;
/** More than were under way: twice what all workers run at once. */
const underWay = 2 * 2 * workers * slots;

async function stepsDone(on: Mesh): Promise<number> {
  const [row] = await on.sql<{ n: number }[]>`
    select count(*)::int as n from events where kind = ${EventKind.EVENT_KIND_STEP_SUCCEEDED}`;
  return row?.n ?? 0;
}

/** Steps are done that were not under way yet, within the bound. The load must not be over, or the fault met nothing. */
async function resumes(on: Mesh, what: string): Promise<void> {
  const before = await stepsDone(on);
  expect(before + underWay, `the load was over before ${what}`).toBeLessThan(runs * 5);
  await waitFor(`steps after ${what}`, async () => (await stepsDone(on)) > before + underWay, resumeMs, 100);
}

it("loses nothing while the nodes of a NATS cluster are killed and cut off in turn", { timeout: 400_000 }, async () => {
  const nats = await startNatsCluster();
  cluster = nats;
  const started = await startMesh({
    coordinators: 2,
    workers,
    natsUrl: nats.url,
    coordinatorEnv: { NATS_REPLICAS: "3" },
    workerEnv: { DELAY_MS: "40", SLOTS: String(slots) },
  });
  mesh = started;
  const accepted = startMany(started, runs);
  accepted.catch(() => {});
  await waitFor("the first runs to end", async () => (await endedRuns(started)) > 20, 60_000);
  const [first, second, third] = nats.nodes as [
    NatsCluster["nodes"][0],
    NatsCluster["nodes"][0],
    NatsCluster["nodes"][0],
  ];

  await first.kill();
  await resumes(started, "the first node was killed");
  await first.start();
  second.cut();
  await resumes(started, "the second node was cut off");
  await second.heal();
  await third.kill();
  await resumes(started, "the third node was killed");
  await third.start();

  const ids = await accepted;
  await allEnded(started, runs, 240_000);
  expect(await judge(started, ids)).toEqual({ runs, succeeded: runs, wrong: 0, oddSteps: 0 });
});
