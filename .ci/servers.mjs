// Makes sure that a real Postgres and a real nats-server are there: from the system's packages where that is possible, else it says
// what to install. Tests never go without them.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";

const onPath = (name) => (process.env.PATH ?? "").split(delimiter).some((folder) => existsSync(join(folder, name)));
const debian = "/usr/lib/postgresql";
const hasPostgres = () =>
  (process.env.PGBIN && existsSync(join(process.env.PGBIN, "initdb"))) ||
  (existsSync(debian) && readdirSync(debian).some((version) => existsSync(join(debian, version, "bin", "initdb")))) ||
  onPath("initdb");
const hasNats = () =>
  (process.env.NATS_SERVER_BIN && existsSync(process.env.NATS_SERVER_BIN)) ||
  onPath("nats-server") ||
  existsSync("/usr/sbin/nats-server");

export function ensureServers() {
  const missing = [...(hasPostgres() ? [] : ["postgresql"]), ...(hasNats() ? [] : ["nats-server"])];
  if (missing.length === 0) return;
  const apt = onPath("apt-get") && process.getuid?.() === 0;
  if (apt) {
    console.log(`installing ${missing.join(" and ")} for the tests`);
    const run = (...args) =>
      execFileSync("apt-get", args, { stdio: "inherit", env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } });
    run("update", "-qq");
    run("install", "-y", "-qq", ...missing);
  }
  if (hasPostgres() && hasNats()) return;
  console.error(
    `The tests need a real Postgres (15 or newer) and a real nats-server (2.9 or newer). Missing: ${missing.join(", ")}.
Debian, Ubuntu: apt-get install postgresql nats-server
macOS:          brew install postgresql nats-server
Or name them: PGBIN (the folder with initdb) and NATS_SERVER_BIN (the binary).`,
  );
  process.exit(1);
}
