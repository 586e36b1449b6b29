// The last step of an installed tree, after collect.mjs and npm ci: takes out what no process reads (source maps and typings),
// writes the bill of materials, and gives every file the same time, so that equal sources make equal trees, byte by byte.
//
// node deploy/finish.mjs <folder>        SOURCE_DATE_EPOCH: the time, in seconds since 1970; default 0
import { lutimesSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { billOfMaterials } from "./sbom.mjs";

const [folder] = process.argv.slice(2);
const epoch = process.env.SOURCE_DATE_EPOCH ?? "0";
if (!folder || !/^\d{1,11}$/.test(epoch)) {
  console.error(
    folder ? `SOURCE_DATE_EPOCH is ${epoch}; set it to whole seconds since 1970` : "name the folder to finish",
  );
  process.exit(2);
}
const root = resolve(folder);
const unread = /\.(?:map|d\.[mc]?ts|d\.ts\.map)$/;

for (const path of readdirSync(root, { recursive: true, encoding: "utf8" })) {
  // The same file may stand below a link too.
  if (unread.test(path)) rmSync(join(root, path), { force: true });
}
const bill = billOfMaterials(root, new Date(Number(epoch) * 1000));
writeFileSync(join(root, "sbom.cdx.json"), `${JSON.stringify(bill, undefined, 1)}\n`);
// From the leaves up: a change below a folder would change its time again.
const stamp = (path) => lutimesSync(path, Number(epoch), Number(epoch));
const all = readdirSync(root, { recursive: true, encoding: "utf8" });
for (const path of all.sort((a, b) => b.length - a.length)) stamp(join(root, path));
stamp(root);
