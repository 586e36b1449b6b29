// Keeps the coordinator of a release in test/release, for the test that runs it beside the present one (test/fault/versions.test.ts).
// Run it when a release is made, with its version as the argument; --from names the folder of another checkout. What it keeps is our own
// code in one bundle and the migrations; npm packages are those of the checkout in which the test runs.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const root = join(import.meta.dirname, "..");
const [version, flag, folder] = process.argv.slice(2);
if (!version) throw new Error("usage: node .ci/pin-release.mjs <version> [--from <folder>]");
const from = flag === "--from" ? folder : root;
const source = (path) => join(from, path);

const result = await build({
  entryPoints: {
    main: source("coordinator/src/main.ts"),
    "evaluation-thread": source("coordinator/src/contracts/evaluation-thread.ts"),
  },
  alias: { "@taskmesh/proto": source("proto/index.ts"), "@taskmesh/runtime": source("runtime/src/index.ts") },
  bundle: true,
  // Aliased paths are not packages; everything else that is not a path is one.
  plugins: [
    {
      name: "packages stay outside",
      setup: ({ onResolve }) =>
        onResolve({ filter: /^[^./]/ }, ({ path }) =>
          path.startsWith("@taskmesh/") ? undefined : { path, external: true },
        ),
    },
  ],
  format: "esm",
  platform: "node",
  target: "node20",
  splitting: true,
  minify: true,
  legalComments: "none",
  // Two folders below the migrations, as in the package.
  outdir: "/dist/store",
  write: false,
});
const files = Object.fromEntries(result.outputFiles.map(({ path, text }) => [relative("/", path), text]));
const migrations = source("coordinator/migrations");
for (const name of readdirSync(migrations, { recursive: true })) {
  if (/\.sql$|_journal\.json$/.test(name)) files[`migrations/${name}`] = readFileSync(join(migrations, name), "utf8");
}
const target = join(root, "test/release/coordinator.json.gz");
writeFileSync(target, gzipSync(JSON.stringify({ version, files }), { level: 9 }));
console.log(`${relative(root, target)}: ${version}, ${Object.keys(files).length} files`);
