/** Writes the example project of `taskmesh init`: all of it, or nothing. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { usageError } from "./exit.js";

/** The files that make up the example. One that exists is never touched, and stops the rest. */
const exampleFiles = ["pages.proto", "worker.ts", "worker.test.ts", "chain.yaml"];
/** What any project has: one that exists is kept as it is. npm leaves a file named .gitignore out of packages, hence the two names. */
const commonFiles: [template: string, target: string][] = [
  ["package.json", "package.json"],
  ["tsconfig.json", "tsconfig.json"],
  ["gitignore", ".gitignore"],
];

const template = (name: string): string => readFileSync(new URL(`../templates/${name}`, import.meta.url), "utf8");

export interface Scaffolded {
  written: string[];
  kept: string[];
  /** What a person must still change, in sentences. */
  warnings: string[];
}

/** Makes an existing package an ES module if it does not say what it is: `worker.ts` awaits at its top level. */
function adoptPackage(path: string): { changed: boolean; warnings: string[] } {
  const source = readFileSync(path, "utf8");
  let parsed: { type?: string };
  try {
    parsed = JSON.parse(source) as { type?: string };
  } catch (cause) {
    throw usageError(`${path} is not JSON: ${(cause as Error).message}`);
  }
  if (parsed.type === "module") return { changed: false, warnings: [] };
  if (parsed.type !== undefined) {
    return {
      changed: false,
      warnings: [`package.json says "type": "${parsed.type}"; worker.ts needs "type": "module".`],
    };
  }
  const indent = /^[ \t]+/m.exec(source)?.[0] ?? "  ";
  writeFileSync(path, `${JSON.stringify({ ...parsed, type: "module" }, null, indent)}\n`);
  return { changed: true, warnings: [] };
}

/**
 * Writes the example into `folder`, which is made if it is missing.
 * @throws CliError (usage) if a file of the example exists; then nothing is written.
 */
export function scaffold(folder: string): Scaffolded {
  const present = exampleFiles.filter((name) => existsSync(join(folder, name)));
  if (present.length > 0) {
    const verb = present.length === 1 ? "exists" : "exist";
    throw usageError(
      `${present.join(", ")} ${verb} already; nothing was written`,
      "Choose another folder: taskmesh init <folder>",
    );
  }
  mkdirSync(folder, { recursive: true });
  const result: Scaffolded = { written: [], kept: [], warnings: [] };
  for (const [source, target] of commonFiles) {
    const path = join(folder, target);
    if (!existsSync(path)) {
      writeFileSync(path, template(source), { flag: "wx" });
      result.written.push(target);
      continue;
    }
    const adopted = target === "package.json" ? adoptPackage(path) : undefined;
    if (adopted?.changed) result.written.push('package.json (added "type": "module")');
    else result.kept.push(target);
    result.warnings.push(...(adopted?.warnings ?? []));
  }
  for (const name of exampleFiles) {
    writeFileSync(join(folder, name), template(name), { flag: "wx" });
    result.written.push(name);
  }
  return result;
}
