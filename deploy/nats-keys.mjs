// Makes what nats-server and the coordinators need for operator mode, where every worker gets credentials of its own: an operator, a system
// account and one account for the mesh. Existing files are kept, so it may run at every start.
//
// node deploy/nats-keys.mjs <folder>
//
//   nats-auth.conf      included by the server's configuration
//   coordinator.creds   NATS_CREDENTIALS_FILE of the coordinators (secret)
//   signing.seed        NATS_ACCOUNT_SEED_FILE of the coordinators: signs workers' credentials (secret)
//   account.id          NATS_ACCOUNT_ID
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

// The package is runtime's, so that the one version of the lockfile is used.
const require = createRequire(resolve(import.meta.dirname, "../runtime/package.json"));
const { createAccount, createOperator, createUser, encodeAccount, encodeOperator, encodeUser, fmtCreds } = await import(
  pathToFileURL(require.resolve("@nats-io/jwt")).href
);

const folder = resolve(process.argv[2] ?? fail("name the folder to write to"));
const path = (name) => join(folder, name);
if (existsSync(path("nats-auth.conf"))) process.exit(0);
mkdirSync(folder, { recursive: true });

const limits = {
  mem_storage: -1,
  disk_storage: -1,
  streams: -1,
  consumer: -1,
  conn: -1,
  leaf: -1,
  subs: -1,
  data: -1,
  payload: -1,
  imports: -1,
  exports: -1,
  wildcards: true,
};
const operator = createOperator();
const system = createAccount();
const account = createAccount();
const signing = createAccount();
const user = createUser();
const claims = { limits, signing_keys: [signing.getPublicKey()] };
const jwt = {
  operator: await encodeOperator("taskmesh", operator, { system_account: system.getPublicKey() }),
  system: await encodeAccount("SYS", system, {}, { signer: operator }),
  account: await encodeAccount("taskmesh", account, claims, { signer: operator }),
  user: await encodeUser("coordinator", user, account),
};
const text = (bytes) => new TextDecoder().decode(bytes);
const write = (name, content, mode) => writeFileSync(path(name), content, { mode });

write("coordinator.creds", text(fmtCreds(jwt.user, user)), 0o640);
write("signing.seed", text(signing.getSeed()), 0o640);
write("account.id", account.getPublicKey(), 0o644);
// Last: its presence says that the others are whole.
write(
  "nats-auth.conf",
  `operator: ${jwt.operator}
system_account: ${system.getPublicKey()}
resolver: MEMORY
resolver_preload: {
  ${system.getPublicKey()}: ${jwt.system}
  ${account.getPublicKey()}: ${jwt.account}
}
`,
  0o644,
);

function fail(message) {
  console.error(message);
  process.exit(2);
}
