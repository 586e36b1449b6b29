// Health of a role in this container, for engines that ask by a command: exit code 0 when it serves.
//
// node deploy/healthcheck.mjs coordinator | gateway | worker
//
// Where TASKMESH_HEALTH_ADDRESS is set, all roles are asked there; a worker answers nowhere else.
import { Client } from "@grpc/grpc-js";
import { createChannel } from "@taskmesh/runtime";

const [role] = process.argv.slice(2);
const timeoutMs = 2_000;
const env = process.env;
const port = (address, fallback) => Number((address ?? "").split(":").at(-1)) || fallback;

/** grpc.health.v1.Health/Check of the whole server; the answer of one that serves is field 1 = SERVING (1). */
function coordinator() {
  const { target, credentials, options } = createChannel({
    addresses: [{ host: "127.0.0.1", port: port(env.TASKMESH_GRPC_ADDRESS, 7400) }],
  });
  const client = new Client(target, credentials, options);
  const bytes = (value) => value;
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      "/grpc.health.v1.Health/Check",
      bytes,
      bytes,
      Buffer.alloc(0),
      { deadline: Date.now() + timeoutMs },
      (error, answer) => resolve(!error && answer.equals(Buffer.from([0x08, 0x01]))),
    );
  });
}

const gateway = () => ready(port(env.TASKMESH_HTTP_ADDRESS, 7480));
const worker = async () => {
  console.error("a worker is asked at TASKMESH_HEALTH_ADDRESS, which is not set");
  return false;
};

async function ready(port) {
  const url = `http://127.0.0.1:${port}/readyz`;
  const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs) }).catch(() => undefined);
  return response?.ok ?? false;
}

const checks = { coordinator, gateway, worker };
if (!(role in checks)) {
  console.error(`name the role: ${Object.keys(checks).join(" or ")}`);
  process.exit(2);
}
const probed = env.TASKMESH_HEALTH_ADDRESS;
const isProbed = probed && probed !== "off";
process.exit((await (isProbed ? ready(port(probed, 7470)) : checks[role]())) ? 0 : 1);
