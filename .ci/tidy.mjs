// House rules that no linter knows, each with its reason. Fails with every finding at once.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const files = execFileSync("git", ["ls-files", "-co", "--exclude-standard"], { cwd: root, encoding: "utf8" }).split(
  "\n",
);
const sources = files.filter((file) => /\.tsx?$/.test(file) && !/(^|\/)(gen|templates|third_party)\//.test(file));
const findings = [];
const say = (file, message) => findings.push(`${file}: ${message}`);

/** A file is one noun; what is longer holds two. */
const linesMax = 400;
/** Packages in the order in which they may import each other. */
const mayImport = {
  proto: [],
  runtime: ["proto"],
  "action-sdk": ["proto", "runtime"],
  actions: ["proto", "runtime", "action-sdk"],
  coordinator: ["proto", "runtime"],
  gateway: ["proto", "runtime"],
  cli: ["proto", "runtime", "action-sdk", "actions", "coordinator", "gateway"],
};

const testNames = new Map();
for (const file of sources) {
  const text = readFileSync(join(root, file), "utf8");
  const test = /\.test\.ts$|^test\//.test(file);
  const lines = text.split("\n").length;
  if (lines > linesMax && !test) say(file, `${lines} lines; at most ${linesMax}: find the second noun`);
  if (/^export default/m.test(text) && !/(vitest|drizzle)\.config\.ts$/.test(file))
    say(file, "default export; name it");
  if (/\b(TODO|FIXME|XXX)\b/.test(text)) say(file, "TODO; do it, or open an issue");
  if (/\b(it|describe|test)\.(skip|todo|only)\(/.test(text)) say(file, "skipped or focused test");
  if (
    !test &&
    /\bprocess\.env\b/.test(text) &&
    !/main\.ts$|config|options|telemetry-start|log\.ts|cli\/|settings|service-env/.test(file)
  ) {
    say(file, "reads process.env; only configuration does");
  }
  const own = file.split("/")[0];
  for (const [, target] of text.matchAll(/from "@taskmesh\/([a-z-]+)(?:\/[^"]*)?"/g)) {
    if (!test && mayImport[own] && target !== own && !mayImport[own].includes(target))
      say(file, `${own} must not import ${target}`);
  }
  if (file.startsWith("coordinator/src/engine/") && !test) {
    for (const [, path] of text.matchAll(/from "([^"]+)"/g)) {
      if (!path.startsWith("./") && path !== "@taskmesh/proto")
        say(file, `the engine is pure and must not import ${path}`);
    }
  }
  if (file.endsWith(".test.ts")) {
    for (const [, name] of text.matchAll(/^ {2}it\("([^"]+)"/gm)) {
      const key = `${file}: ${name}`;
      if (testNames.has(key)) say(file, `two tests are named "${name}"`);
      testNames.set(key, true);
    }
  }
}
if (findings.length > 0) {
  console.error(findings.join("\n"));
  process.exit(1);
}
