/**
 * `npm run demo`: a mesh, a worker of its own and a small web, each real; a chain of five steps over every page; the worker killed
 * in the middle. Ends with 0 only if every page has its one right result.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "../fixtures/ports.js";
import { ServerProcess } from "../fixtures/process.js";
import { isReady, isServed, startRun, timesOf, waitForEnd } from "./api.js";
import { createScreen } from "./screen.js";
import { type Page, serveDemoWeb } from "./web.js";

const pageCount = 120;
/** Runs at once: more than the worker has slots, so that others go on while some wait for the killed one. */
const runsAtOnce = 24;
const lookupsAtOnce = 6;
/** Pages done before the worker is killed. */
const killAfter = 40;
const readyTimeoutMs = 90_000;
/** Far more than the demo takes on a slow machine: what is not over by then never ends. */
const demoTimeoutMs = 300_000;
const chain = "demo.pages.v1.Pages/Digest";
const action = "demo.pages.v1.PageActions/Extract";
const folder = import.meta.dirname;
const sourceArgs = ["--import", "tsx", "--conditions=@taskmesh/source"];
const cli = join(folder, "..", "..", "cli", "src", "main.ts");

interface Outcome {
  page: Page;
  runId: string;
  ok: boolean;
  text: string;
}

const screen = createScreen();
const startedAt = performance.now();
const elapsed = (): string => `${((performance.now() - startedAt) / 1000).toFixed(1)} s`;

function startWorker(grpcAddress: string): ServerProcess {
  const env = { ...process.env, TASKMESH_ADDRESS: grpcAddress, TASKMESH_LOG_LEVEL: "error" };
  return new ServerProcess(process.execPath, [...sourceArgs, join(folder, "worker.ts")], { env });
}

async function startMesh(data: string, httpHost: string) {
  const [grpcPort = 0, httpPort = 0] = await freePorts(2);
  const grpc = `127.0.0.1:${grpcPort}`;
  const origin = `http://127.0.0.1:${httpPort}`;
  const args = [...sourceArgs, cli, "dev", "--data", data, "--grpc-address", grpc];
  args.push("--http-address", `127.0.0.1:${httpPort}`, "--http-allow", httpHost);
  const env = { ...process.env, TASKMESH_LOG_LEVEL: "error" };
  const mesh = new ServerProcess(process.execPath, args, { env });
  await mesh.ready("the mesh", () => isReady(origin), readyTimeoutMs);
  return { mesh, grpc, origin };
}

async function applyChain(origin: string): Promise<void> {
  const args = [...sourceArgs, cli, "chains", "apply", join(folder, "chain.yaml"), "--url", origin];
  const apply = new ServerProcess(process.execPath, args);
  await apply.exited();
  screen.line(`$ taskmesh chains apply chain.yaml\n${apply.output.trim()}`);
  if (!apply.output.includes(chain)) throw new Error("the chain was not stored");
}

/** One page through the chain, checked against the words that were counted when it was written. */
async function digest(origin: string, webOrigin: string, page: Page): Promise<Outcome> {
  const runId = await startRun(origin, chain, { url: `${webOrigin}${page.path}` }, `demo${page.path}`);
  const result = await waitForEnd(origin, runId);
  const succeeded = result.status.endsWith("SUCCEEDED");
  const ok = succeeded && result.output?.words === page.words;
  const failure = `${result.status} ${result.failure?.reason ?? ""} ${result.failure?.message ?? ""}`;
  const wrong = ok || !succeeded ? "" : `  expected ${page.words} words`;
  return { page, runId, ok, text: succeeded ? `${result.output?.digest ?? ""}${wrong}` : failure };
}

/** Does `work` for every item, `atOnce` at a time. Results are in the order of their ends. */
async function inLanes<Item, Result>(
  items: Item[],
  atOnce: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const waiting = [...items];
  const results: Result[] = [];
  const lane = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) results.push(await work(item));
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  return results;
}

const percentile = (sorted: number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;

/** Prints counts and latencies. Returns whether every page has its one right result. */
async function summarize(origin: string, outcomes: Outcome[], tookMs: number): Promise<boolean> {
  const times = await inLanes(outcomes, lookupsAtOnce, ({ runId }) => timesOf(origin, runId));
  const latency = (all: typeof times): string => {
    const sorted = all.map((run) => Date.parse(run.endedAt) - Date.parse(run.acceptedAt)).sort((a, b) => a - b);
    return `p50 ${percentile(sorted, 0.5)} ms, p99 ${percentile(sorted, 0.99)} ms`;
  };
  const retried = times.filter((run) => Object.values(run.attempts).some((attempt) => attempt > 1));
  const undisturbed = times.filter((run) => !retried.includes(run));
  const right = outcomes.filter((outcome) => outcome.ok).length;
  const distinct = new Set(outcomes.map((outcome) => outcome.runId)).size;
  screen.line(`
${right} of ${outcomes.length} pages have the right result, in ${distinct} runs of 5 steps each; lost: ${pageCount - outcomes.length}
latency of a run from acceptance to result: ${latency(undisturbed)} (${undisturbed.length} runs)
${retried.length} runs had a step in the hands of the killed worker and were given to the new one: ${retried.length > 0 ? latency(retried) : "-"}
${(outcomes.length / (tookMs / 1000)).toFixed(1)} pages a second, the time that the killed worker cost included; ${elapsed()} in all`);
  return right === pageCount && distinct === pageCount;
}

async function demo(data: string): Promise<boolean> {
  const web = await serveDemoWeb(pageCount);
  const broken = web.pages.filter((page) => page.broken).length;
  screen.line(`A web of ${pageCount} pages at ${web.origin}, ${broken} of them with broken markup.`);
  const { mesh, grpc, origin } = await startMesh(data, "127.0.0.1");
  screen.line(`A mesh (process ${mesh.pid}): gRPC ${grpc}, REST ${origin}, ready after ${elapsed()}.`);
  let worker = startWorker(grpc);
  await worker.ready("the worker", () => isServed(origin, action), readyTimeoutMs);
  screen.line(`A worker (process ${worker.pid}) has registered ${action}.\n`);
  await applyChain(origin);
  screen.line("");
  let done = 0;
  let killed = false;
  const began = performance.now();
  const outcomes = await inLanes(web.pages, runsAtOnce, async (page) => {
    const outcome = await digest(origin, web.origin, page);
    const { ok, text } = outcome;
    done += 1;
    screen.line(`${ok ? "✓" : "✗"} ${page.path.padEnd(9)} ${text}`);
    screen.progress(done, pageCount);
    if (killed || done < killAfter) return outcome;
    killed = true;
    const former = worker.pid;
    worker.signal("SIGKILL");
    worker = startWorker(grpc);
    screen.line(`\n  --- killed the worker (kill -9 ${former}) and started another one (process ${worker.pid}) ---\n`);
    return outcome;
  });
  const good = await summarize(origin, outcomes, performance.now() - began);
  worker.signal("SIGTERM");
  mesh.signalLeader("SIGTERM");
  await Promise.all([worker.exited(), mesh.exited(), web.close()]);
  return good && killed;
}

process.on("SIGINT", () => process.exit(130));
process.on("SIGTERM", () => process.exit(143));
const data = mkdtempSync(join(tmpdir(), "taskmesh-demo-"));
process.once("exit", () => rmSync(data, { recursive: true, force: true }));
const overdue = new Promise<never>((_resolve, reject) => {
  setTimeout(() => reject(new Error(`not done after ${demoTimeoutMs / 1000} s`)), demoTimeoutMs).unref();
});
try {
  const good = await Promise.race([demo(data), overdue]);
  screen.line(
    good
      ? `
Nothing was lost. What to try next:
  npm run dev                                     a mesh that stays, in .taskmesh/
  open README.md                                  ten minutes to an action of your own
  test/demo/worker.ts, test/demo/chain.yaml       what ran just now`
      : "\nSomething is not as it should be: see the lines marked ✗.",
  );
  process.exit(good ? 0 : 1);
} catch (error) {
  screen.line(`\nThe demo stopped: ${(error as Error).stack}`);
  process.exit(1);
}
