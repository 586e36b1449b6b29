// Copies what an image needs from a built checkout into a folder: manifests, the lockfile, and the files that the packages of the server
// roles ship. Then, in that folder: npm ci --omit=dev --workspace coordinator --workspace gateway --workspace actions
//
// node deploy/collect.mjs <folder>
import { cpSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "..");
const out = resolve(process.argv[2] ?? fail("name the folder to copy to"));
const roles = ["coordinator", "gateway", "actions"];

/** The manifest of a workspace. */
const manifest = (folder) => JSON.parse(readFileSync(join(root, folder, "package.json"), "utf8"));
const { workspaces } = manifest(".");
const folderOf = new Map(workspaces.map((folder) => [manifest(folder).name, folder]));

/** The roles' folders and those of the workspaces that they use. */
const needed = new Set();
const need = (folder) => {
  if (needed.has(folder)) return;
  needed.add(folder);
  for (const name of Object.keys(manifest(folder).dependencies ?? {})) {
    if (folderOf.has(name)) need(folderOf.get(name));
  }
};
for (const role of roles) need(role);

const copy = (path) => {
  const from = join(root, path);
  if (!existsSync(from)) fail(`${path} is missing: run "npm ci && npm run build" first`);
  mkdirSync(dirname(join(out, path)), { recursive: true });
  cpSync(from, join(out, path), { recursive: true, filter: (source) => basename(source) !== ".tsbuildinfo" });
};
for (const path of ["package.json", "package-lock.json", ".npmrc", "deploy/healthcheck.mjs", "deploy/nats-keys.mjs"])
  copy(path);
// npm ci holds every manifest against the lockfile; only those that are needed get their files.
for (const folder of workspaces) copy(join(folder, "package.json"));
for (const folder of needed) {
  for (const path of manifest(folder).files.filter((entry) => !entry.startsWith("!"))) copy(join(folder, path));
}

function fail(message) {
  console.error(message);
  process.exit(2);
}
