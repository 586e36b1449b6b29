// The bill of materials of an installed tree, CycloneDX 1.6 as JSON: what npm put there by its own record, with versions, licenses, hashes and who
// needs whom. The same tree gives the same bill. (`npm sbom` refuses trees that hold a part of the workspaces.)
//
// node deploy/sbom.mjs <folder>        prints it; the image has its own at /app/sbom.cdx.json
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

/** `at`: the time that the bill bears. */
export function billOfMaterials(folder, at) {
  const text = readFileSync(join(folder, "node_modules", ".package-lock.json"), "utf8");
  const { name: ownName, packages } = JSON.parse(text);
  const installed = Object.entries(packages).filter(([, entry]) => !entry.link);
  const refOf = ([path, { version }]) => purl(nameOf(path, packages), version);
  const components = installed.map((one) => componentOf(one, refOf(one), packages)).sort(byRef);
  const dependencies = installed
    .map((one) => ({
      ref: refOf(one),
      dependsOn: [
        ...new Set(
          Object.keys({ ...one[1].dependencies, ...one[1].optionalDependencies, ...one[1].peerDependencies }).flatMap(
            (name) => {
              const found = resolveFrom(one[0], name, packages);
              return found ? refOf(found) : [];
            },
          ),
        ),
      ].sort(),
    }))
    .sort(byRef);
  const seen = new Set();
  const once = (one) => !seen.has(one.ref ?? one["bom-ref"]) && seen.add(one.ref ?? one["bom-ref"]);
  const unique = components.filter(once);
  seen.clear();
  return {
    bomFormat: "CycloneDX",
    specVersion: "1.6",
    serialNumber: `urn:uuid:${uuidOf(text)}`,
    version: 1,
    metadata: { timestamp: at.toISOString(), component: { type: "application", "bom-ref": ownName, name: "taskmesh" } },
    components: unique,
    dependencies: dependencies.filter(once),
  };
}

const byRef = (a, b) => ((a["bom-ref"] ?? a.ref) < (b["bom-ref"] ?? b.ref) ? -1 : 1);
const nameOf = (path, packages) =>
  packages[path].name ?? path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length);
const purl = (name, version) => `pkg:npm/${name.replace(/^@/, "%40")}@${version}`;

function componentOf([path, { version, license, integrity, resolved }], ref, packages) {
  const name = nameOf(path, packages);
  const [, algorithm, digest] = /^(sha\d+)-(.+)$/.exec(integrity ?? "") ?? [];
  return {
    type: "library",
    "bom-ref": ref,
    name,
    version,
    purl: ref,
    ...(license ? { licenses: [/[ ()]/.test(license) ? { expression: license } : { license: { id: license } }] } : {}),
    ...(digest
      ? { hashes: [{ alg: algorithm.replace("sha", "SHA-"), content: Buffer.from(digest, "base64").toString("hex") }] }
      : {}),
    ...(resolved?.startsWith("https:") ? { externalReferences: [{ type: "distribution", url: resolved }] } : {}),
  };
}

/** The package that `name` means inside of the one at `path`: Node's rule, over npm's record. */
function resolveFrom(path, name, packages) {
  for (let at = path; ; at = at.slice(0, Math.max(0, at.lastIndexOf("/node_modules/")))) {
    const found = at === "" ? `node_modules/${name}` : `${at}/node_modules/${name}`;
    const entry = packages[found];
    if (entry?.link) return [entry.resolved, packages[entry.resolved]];
    if (entry) return [found, entry];
    if (at === "") return undefined;
    if (!at.includes("/node_modules/")) at = "";
  }
}

/** The bill's number is made of what it says, not of chance. */
function uuidOf(text) {
  const hex = createHash("sha256").update(text).digest("hex");
  const variant = ((Number.parseInt(hex[16], 16) & 3) | 8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-5${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [folder] = process.argv.slice(2);
  if (!folder) {
    console.error("name the folder of the installed tree");
    process.exit(2);
  }
  const at = new Date(Number(process.env.SOURCE_DATE_EPOCH ?? 0) * 1000);
  console.log(JSON.stringify(billOfMaterials(resolve(folder), at), undefined, 1));
}
