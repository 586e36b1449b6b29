/**
 * A copy of the sources in which bugs can be planted. Packages that are ours resolve to the copy, all others to what is installed; nothing of the
 * working tree is ever written to.
 */
import { execFileSync, spawn } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { Kill, Mutant } from "./mutants.js";

const root = join(import.meta.dirname, "..", "..");
/** Longer than any kill takes on a slow machine. */
const killLimitMs = 300_000;

export interface Scratch {
  /** Plants the bug; answers how to take it out again. Throws if its text is not in the file exactly once. */
  plant(mutant: Mutant): () => void;
  /** Why the packages don't compile; undefined: they do. */
  compile(): Promise<string | undefined>;
  /** Runs what is to catch the bug: whether tests failed, and what they said. `broken`: they did not run. */
  run(kill: Kill): Promise<{ outcome: "passed" | "failed" | "broken"; output: string }>;
  remove(): void;
}

/** Copies what git knows and does not ignore. */
export function openScratch(): Scratch {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "taskmesh-mutants-")));
  const listed = execFileSync("git", ["ls-files", "-co", "--exclude-standard"], { cwd: root, encoding: "utf8" });
  for (const file of listed.split("\n").filter((name) => name !== "")) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    cpSync(join(root, file), join(folder, file), { force: true });
  }
  linkModules(folder);
  return {
    plant: (mutant) => plant(folder, mutant),
    async compile() {
      const { status, output } = await execute(folder, ["node_modules/typescript/bin/tsc", "-b"]);
      return status === 0 ? undefined : output;
    },
    run: (kill) => run(folder, kill),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function linkModules(folder: string): void {
  const installed = join(root, "node_modules");
  mkdirSync(join(folder, "node_modules", "@taskmesh"), { recursive: true });
  for (const name of readdirSync(installed))
    if (name !== "@taskmesh" && name !== ".vite")
      symlinkSync(join(installed, name), join(folder, "node_modules", name));
  for (const name of readdirSync(join(installed, "@taskmesh"))) {
    const at = realpathSync(join(installed, "@taskmesh", name));
    symlinkSync(join(folder, at.slice(realpathSync(root).length + 1)), join(folder, "node_modules", "@taskmesh", name));
  }
}

function plant(folder: string, { name, file, find, replace }: Mutant): () => void {
  const path = join(folder, file);
  const text = readFileSync(path, "utf8");
  const found = text.split(find).length - 1;
  if (found !== 1) throw new Error(`mutant "${name}": its text is ${found} times in ${file}, not once`);
  writeFileSync(
    path,
    text.replace(find, () => replace),
  );
  return () => writeFileSync(path, text);
}

async function run(folder: string, kill: Kill): ReturnType<Scratch["run"]> {
  if ("seeds" in kill) {
    const flags = ["--import", "tsx", "--conditions=@taskmesh/source"];
    const { status, output } = await execute(folder, [
      ...flags,
      "test/simulate/main.ts",
      "--seeds",
      String(kill.seeds),
    ]);
    if (status === 0) return { outcome: "passed", output };
    return { outcome: /^seed \d+: /m.test(output) ? "failed" : "broken", output };
  }
  const report = join(folder, "report.json");
  rmSync(report, { force: true });
  const args = ["run", kill.test, "--reporter=json", `--outputFile=${report}`, "--retry=0"];
  const { output } = await execute(folder, [
    "node_modules/vitest/vitest.mjs",
    ...args,
    ...(kill.name ? ["-t", kill.name] : []),
  ]);
  let result: { numFailedTests: number; numPassedTests: number };
  try {
    result = JSON.parse(readFileSync(report, "utf8"));
  } catch {
    return { outcome: "broken", output };
  }
  if (result.numFailedTests > 0) return { outcome: "failed", output };
  return { outcome: result.numPassedTests > 0 ? "passed" : "broken", output };
}

/** Runs node in the copy. A bug that makes a test wait for ever is ended with it. */
function execute(folder: string, args: readonly string[]): Promise<{ status: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"], detached: true });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.stderr.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
    // Its own children end with it.
    const timer = setTimeout(() => process.kill(-child.pid!, "SIGKILL"), killLimitMs);
    child.on("close", (status) => {
      clearTimeout(timer);
      resolve({ status, output });
    });
  });
}
