// Writes the next migration from the Drizzle schema. Drizzle does not know partitioned tables: their clause is added here.
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = import.meta.dirname;
const folder = join(root, "migrations");
const partitioned = { runs: "id", events: "run_id" };

execFileSync("npx", ["drizzle-kit", "generate", ...process.argv.slice(2)], { cwd: root, stdio: "inherit" });
for (const file of readdirSync(folder).filter((name) => name.endsWith(".sql"))) {
  const path = join(folder, file);
  let text = readFileSync(path, "utf8");
  for (const [table, column] of Object.entries(partitioned)) {
    const plain = new RegExp(`(CREATE TABLE "${table}" \\([^;]*?\\n\\))(;)`);
    text = text.replace(plain, `$1 PARTITION BY RANGE ("${column}")$2`);
  }
  writeFileSync(path, text);
}
