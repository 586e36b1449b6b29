// npm test: makes sure of the servers and tools, runs every test, closes with one line "N passed, N failed".
// Arguments go to vitest: `npm test -- coordinator/src/engine`.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ensureServers } from "./servers.mjs";

ensureServers();
const tools = ["--import", "tsx", "--conditions=@taskmesh/source", join(import.meta.dirname, "tools.ts")];
if (spawnSync(process.execPath, tools, { stdio: "inherit" }).status !== 0) process.exit(1);
const folder = mkdtempSync(join(tmpdir(), "taskmesh-test-"));
const report = join(folder, "report.json");
const root = join(import.meta.dirname, "..");
const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
const args = ["run", "--reporter=default", "--reporter=json", `--outputFile.json=${report}`, ...process.argv.slice(2)];
const { status } = spawnSync(process.execPath, [vitest, ...args], { cwd: root, stdio: "inherit" });

let passed = 0;
let failed = 0;
try {
  const result = JSON.parse(readFileSync(report, "utf8"));
  passed = result.numPassedTests;
  // A file that can't be loaded has no tests to fail, and an error between tests belongs to none.
  const broken = result.testResults.filter(
    (file) => file.status === "failed" && file.assertionResults.length === 0,
  ).length;
  failed = result.numFailedTests + broken;
  const skipped = result.numPendingTests + result.numTodoTests;
  if (process.env.CI && skipped > 0) {
    console.error(`${skipped} tests were skipped; in CI none may be`);
    failed += skipped;
  }
} catch (error) {
  console.error(`the test run left no report: ${error.message}`);
}
rmSync(folder, { recursive: true, force: true });
if (status !== 0 && failed === 0) failed = 1;
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed > 0 || passed === 0 ? 1 : 0);
