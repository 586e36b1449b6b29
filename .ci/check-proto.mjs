// The contracts: lint, no break against the image of the last release, and generated code equal to what is committed.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
const buf = join(root, "node_modules", ".bin", "buf");
const run = (command, args, cwd = root) => execFileSync(command, args, { cwd, stdio: "inherit" });

run(buf, ["lint"], join(root, "proto"));
// proto/release.binpb is renewed with each release: `buf build proto -o proto/release.binpb --exclude-source-info`.
run(
  buf,
  ["breaking", ".", "--against", "release.binpb", "--exclude-imports", "--path", "taskmesh"],
  join(root, "proto"),
);
run(process.execPath, [join(root, "actions", "generate.mjs"), "--lint"]);

for (const script of ["proto/generate.mjs", "actions/generate.mjs"]) run(process.execPath, [join(root, script)]);
run(process.execPath, ["--import", "tsx", "--conditions=@taskmesh/source", join(root, ".ci/builtin-contracts.ts")]);
const generated = ["proto/gen", "actions/src/gen", "coordinator/src/registry/builtin-contracts.ts"];
if (existsSync(join(root, ".git"))) {
  const changed = execFileSync("git", ["status", "--porcelain", "--", ...generated], { cwd: root, encoding: "utf8" });
  if (changed !== "") {
    console.error(`generated code differs from the contracts; run "npm run gen" and commit:\n${changed}`);
    process.exit(1);
  }
}
