/**
 * Workers of three languages keep the worker protocol: the SDK's, and two of plain generated stubs. They share one mesh and run side by side.
 *
 * Python needs python3 with pip's registry, Go a toolchain with its module proxy: where they are missing the test says so, and in CI the
 * one for Python fails, as does the one for Go if there is a toolchain.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { InProcessMesh } from "../fixtures/in-process-mesh.js";
import { findBinary } from "../fixtures/process.js";
import { conformanceCases } from "./cases/index.js";
import { startKitMesh } from "./kit.js";
import { readSections, reportCase, reportEnd, sectionLink } from "./report.js";
import { runCases, type Verdict } from "./run-cases.js";
import { goWorker, pythonWorker, typescriptWorker, type WorkerCommand } from "./workers.js";

/** Preparing a toolchain the first time, then half a minute of cases; this only ends what hangs. */
const limitMs = 600_000;
/** For a machine that does much else: nothing here is about speed. */
const patienceMs = 120_000;
const languages = ["typescript", "python", "go", "none"] as const;
let mesh: InProcessMesh;

beforeAll(async () => {
  mesh = await startKitMesh(languages);
}, limitMs);
afterAll(() => mesh.stop());

const judge = (namespace: string, command: string, cases = conformanceCases): Promise<Verdict[]> =>
  runCases({ command, cwd: process.cwd(), env: process.env, mesh, namespace, patienceMs }, cases);

async function expectConforming(namespace: string, worker: WorkerCommand, needed: boolean): Promise<void> {
  if ("missing" in worker) {
    if (process.env["CI"] && needed) throw new Error(worker.missing);
    process.stderr.write(`the ${namespace} worker was not tested: ${worker.missing}\n`);
    return;
  }
  const verdicts = await judge(namespace, worker.command);
  const titles = readSections();
  const failed = verdicts.filter(({ breaches }) => breaches.length > 0);
  expect(failed.map((verdict) => reportCase(verdict, verdicts.indexOf(verdict), titles)).join("\n")).toBe("");
  expect(verdicts).toHaveLength(conformanceCases.length);
}

describe.concurrent("the conformance kit", () => {
  it(
    "passes the worker of the TypeScript SDK",
    () => expectConforming("typescript", typescriptWorker(), true),
    limitMs,
  );

  it(
    "passes a worker of plain Python stubs",
    async () => expectConforming("python", await pythonWorker(), true),
    limitMs,
  );

  it(
    "passes a worker of plain Go stubs",
    async () => expectConforming("go", await goWorker(), findBinary(["go"]) !== undefined),
    limitMs,
  );

  it("says what a worker did not do, and in which section of the page that is", async () => {
    const [first] = conformanceCases;
    const [verdict, ...rest] = await judge("none", "echo I cannot speak", [first!]);
    expect(rest).toEqual([]);
    const report = reportCase(verdict!, 0, readSections());
    expect(report).toContain("not ok 1 - registers its queue");
    expect(report).toContain("ended (exit code 0) instead of: a registration that holds");
    expect(report).toContain("docs/worker-protocol.md#3-registration (3)");
    expect(report).toContain("    I cannot speak\n");
    expect(reportEnd([verdict!])).toBe("# broken: §3 of docs/worker-protocol.md\n# 0 passed, 1 failed\n");
  });

  it("names sections that the page has", () => {
    const titles = readSections();
    for (const { section } of conformanceCases) expect(titles.get(section.split(".")[0]!), section).toBeDefined();
    expect(sectionLink("6.7", titles)).toBe("docs/worker-protocol.md#6-an-attempt (6.7)");
    expect(new Set(conformanceCases.map(({ name }) => name)).size).toBe(conformanceCases.length);
  });
});
