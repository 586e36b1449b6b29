/**
 * A NATS cluster with three copies of each stream, two coordinators, three workers and one Postgres: nodes are killed and cut off in turn
 * while 5,000 runs go through, a thousand of them under way at any time. Dispatch resumes after each fault, and nothing is lost.
 */
import { EventKind } from "@taskmesh/proto";
import { afterEach, expect, it } from "vitest";
import { allEnded, endedRuns, judge, type Mesh, startMany, startMesh } from "../fixtures/mesh.js";
import { type NatsCluster, startNatsCluster } from "../fixtures/nats-cluster.js";
import { waitFor } from "../fixtures/process.js";

/** Runs under way: enough for every slot, and few enough to end soon when the faults are over. */
const runsAtOnce = 1_000;
const runsMin = 5_000;
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

/** Steps are done that were not under way yet, within the bound. */
async function resumes(on: Mesh, what: string): Promise<void> {
  const before = await stepsDone(on);
  await waitFor(`steps after ${what}`, async () => (await stepsDone(on)) > before + underWay, resumeMs, 100);
}

/** Starts new runs where old ones have ended, until `enough` is called and there were `runsMin`; that answers the ids of all. */
function keepBusy(on: Mesh): { enough(): Promise<string[]> } {
  const ids: string[] = [];
  let isEnough = false;
  const going = (async () => {
    while (!isEnough || ids.length < runsMin) {
      const room = runsAtOnce - (ids.length - (await endedRuns(on)));
      if (room > 0) ids.push(...(await startMany(on, room, ids.length)));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return ids;
  })();
  // Heard when the test asks.
  going.catch(() => {});
  return {
    enough() {
      isEnough = true;
      return going;
    },
  };
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
  const load = keepBusy(started);
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

  const ids = await load.enough();
  const runs = ids.length;
  await allEnded(started, runs, 240_000);
  expect(await judge(started, ids)).toEqual({ runs, succeeded: runs, wrong: 0, oddSteps: 0 });
  expect(runs).toBeGreaterThanOrEqual(runsMin);
});
