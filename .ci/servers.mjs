// Makes sure that a real Postgres, a real nats-server, Prometheus' checker and a browser are there: from the system's packages where that is
// possible, else it says what to install. Tests never go without them.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
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

/** Where tests look for it too (test/fixtures/promtool.ts). */
const ownTools = join(tmpdir(), "taskmesh-ci-tools");
const hasPromtool = () =>
  (process.env.PROMTOOL_BIN && existsSync(process.env.PROMTOOL_BIN)) ||
  onPath("promtool") ||
  existsSync(join(ownTools, "promtool"));

/** The names by which tests find it (test/fixtures/browser.ts). */
const hasBrowser = () => ["chromium", "chromium-browser", "google-chrome"].some(onPath);

const run = (command, ...args) =>
  execFileSync(command, args, { stdio: "inherit", env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } });

// Taken out of its package rather than installed with it: that would start a Prometheus.
function unpackPromtool() {
  const folder = mkdtempSync(join(tmpdir(), "taskmesh-promtool-"));
  try {
    execFileSync("apt-get", ["download", "-qq", "-o", "APT::Sandbox::User=root", "prometheus"], {
      cwd: folder,
      stdio: "inherit",
    });
    const [archive] = readdirSync(folder);
    run("dpkg-deb", "-x", join(folder, archive), join(folder, "tree"));
    mkdirSync(ownTools, { recursive: true });
    copyFileSync(join(folder, "tree", "usr", "bin", "promtool"), join(ownTools, "promtool"));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function ensureServers() {
  const servers = [
    ...(hasPostgres() ? [] : ["postgresql"]),
    ...(hasNats() ? [] : ["nats-server"]),
    ...(hasBrowser() ? [] : ["chromium"]),
  ];
  const missing = [...servers, ...(hasPromtool() ? [] : ["promtool"])];
  if (missing.length === 0) return;
  const apt = onPath("apt-get") && process.getuid?.() === 0;
  if (apt) {
    console.log(`installing ${missing.join(" and ")} for the tests`);
    run("apt-get", "update", "-qq");
    if (servers.length > 0) run("apt-get", "install", "-y", "-qq", ...servers);
    if (!hasPromtool()) unpackPromtool();
  }
  if (hasPostgres() && hasNats() && hasPromtool() && hasBrowser()) return;
  console.error(
    `The tests need a real Postgres (15 or newer), a real nats-server (2.9 or newer), promtool (2.42 or newer) and Chromium. Missing: ${missing.join(", ")}.
Debian, Ubuntu: apt-get install postgresql nats-server prometheus chromium
macOS:          brew install postgresql nats-server prometheus, and Chromium as chromium on the PATH
Or name them: PGBIN (the folder with initdb), NATS_SERVER_BIN and PROMTOOL_BIN (the binaries).`,
  );
  process.exit(1);
}
