// Builds every workspace and packs it into dist-packages/ (or the folder after --out), ready for `npm i dist-packages/*.tgz`
// in any folder. --no-build packs what was built before.
import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join, relative, resolve } from "node:path";

const root = join(import.meta.dirname, "..");
const at = process.argv.indexOf("--out");
const out = at < 0 ? join(root, "dist-packages") : resolve(process.argv[at + 1]);
const run = (command, args) =>
  execFileSync(command, args, {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
    shell: process.platform === "win32",
  });

if (!process.argv.includes("--no-build")) {
  execFileSync(process.execPath, [join(root, "node_modules/typescript/bin/tsc"), "-b"], {
    cwd: root,
    stdio: "inherit",
  });
}
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const manifest = (folder) => JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
// Private ones are tools of the tests.
const workspaces = manifest(".").workspaces.filter((folder) => manifest(folder).private !== true);
run("npm", [
  "pack",
  "--loglevel=error",
  "--pack-destination",
  out,
  ...workspaces.flatMap((name) => ["--workspace", name]),
]);
for (const name of readdirSync(out).sort()) {
  console.log(`${relative(".", join(out, name))}  ${Math.ceil(statSync(join(out, name)).size / 1024)} KiB`);
}
