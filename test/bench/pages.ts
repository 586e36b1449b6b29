/**
 * pages: ten chains of a fetch and four parse steps over real HTML pages from a local web server, on real servers, with the built-in actions in a
 * process of their own. Every result is checked against what the page server says directly.
 */
import { join } from "node:path";
import { ChainServiceClient, RunServiceClient, RunStatus, StartRunRequest } from "@taskmesh/proto";
import { type Address, createClient, parseChainDocument, unaryCall } from "@taskmesh/runtime";
import { startPageServer } from "../fixtures/pages.js";
import { freePort } from "../fixtures/ports.js";
import { ServerProcess } from "../fixtures/process.js";
import { drive, median, quantile } from "./load.js";
import { cpuSeconds, rssMb } from "./processes.js";
import { startServers } from "./setup.js";

const chains = 10;
/** npm runs scripts in the root of the project. */
const root = process.cwd();
const nodeArgs: string[] = [];

/** Chain `k` of ten: the same facts by other selectors, patterns and templates. */
function chainText(k: number): string {
  const heading = ["h1", "body h1", "h1:first-of-type", "#article h1, h1", "html h1"][k % 5];
  return `
contract:
  name: bench.pages.v${k + 1}.Pages/Read
  input: { url: string }
  output: { line: string }
run_timeout: 300s
steps:
  - id: fetch
    call: taskmesh.http.v1.HttpActions/Request
    input: { method: "'GET'", url: input.url }
    retry: { exponential: { initial: 0.2s, cap: 2s }, max_attempts: 5 }
  - id: title
    call: taskmesh.html.v1.HtmlActions/Select
    input: { html: steps.fetch.output.text, css: "'${heading}'", text_only: "true", limit: 1 }
  - id: article
    call: taskmesh.html.v1.HtmlActions/Select
    input: { html: steps.fetch.output.text, css: "'#article'", text_only: "true" }
  - id: price
    call: taskmesh.text.v1.TextActions/RegexApply
    input: { text: steps.article.output.text, pattern: "'Price: ([0-9]+[.][0-9]+) EUR'" }
  - id: line
    call: taskmesh.text.v1.TextActions/Render
    input:
      template: "'${k}: {{title}} costs {{price}}'"
      values: "{'title': steps.title.output.text, 'price': steps.price.output.matches[0].groups[0]}"
output:
  line: steps.line.output.text
`;
}

export async function benchPages(options: { runs: number; inFlight: number }): Promise<void> {
  const pages = await startPageServer();
  const servers = await startServers();
  const port = await freePort();
  const address: Address = { host: "127.0.0.1", port };
  const env = { ...process.env, TASKMESH_LOG_LEVEL: "info", TASKMESH_METRICS_ADDRESS: "off" };
  const coordinator = new ServerProcess(process.execPath, [...nodeArgs, join(root, "coordinator/dist/main.js")], {
    cwd: root,
    env: {
      ...env,
      DATABASE_URL: servers.databaseUrl,
      NATS_URL: servers.nats.url,
      TASKMESH_GRPC_ADDRESS: `127.0.0.1:${port}`,
    },
  });
  await coordinator.ready("the coordinator", () => coordinator.output.includes("serving gRPC"), 60_000);
  const worker = new ServerProcess(process.execPath, [...nodeArgs, join(root, "actions/dist/main.js")], {
    cwd: root,
    env: { ...env, TASKMESH_ADDRESS: `127.0.0.1:${port}`, TASKMESH_HTTP_ALLOW: "127.0.0.1/32", TASKMESH_SLOTS: "64" },
  });
  await worker.ready("the built-in actions", () => worker.output.includes("Render"), 60_000);
  const runs = createClient(RunServiceClient, { addresses: [address] });
  try {
    await saveChains(address);
    const pids = {
      coordinator: coordinator.pid,
      worker: worker.pid,
      nats: servers.nats.pid,
      postgres: servers.postgres.pid,
    };
    const before = Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, cpuSeconds(pid)]));
    const wrong: string[] = [];
    const load = await drive({ count: options.runs, inFlight: options.inFlight, first: 0 }, async (i) => {
      const line = await readPage(runs, i % chains, pages.url(i));
      const { title, price } = pages.expected(i);
      const right = line === `${i % chains}: ${title} costs ${price}`;
      if (!right && wrong.length < 3) wrong.push(`${i}: ${line}`);
      return right;
    });
    const steps = load.done * 5;
    console.log(
      JSON.stringify({
        name: "pages",
        runs: load.done,
        wrong: load.wrong,
        examples: wrong,
        pages_served: pages.served,
        runs_per_s: Math.round((load.done / load.ms) * 1000),
        steps_per_s: Math.round((steps / load.ms) * 1000),
        p50_ms: Math.round(median(load.latenciesMs)),
        p99_ms: Math.round(quantile(load.latenciesMs, 0.99)),
        cpu_s_per_1000_steps: Object.fromEntries(
          Object.entries(pids).map(([name, pid]) => [
            name,
            Math.round(((cpuSeconds(pid) - (before[name] ?? 0)) / steps) * 1e6) / 1000,
          ]),
        ),
        rss_mb: Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, rssMb(pid)])),
      }),
    );
  } finally {
    runs.close();
    for (const child of [worker, coordinator]) {
      child.signal("SIGTERM");
      await child.exited();
    }
    await servers.stop();
    await pages.close();
  }
}

async function saveChains(address: Address): Promise<void> {
  const client = createClient(ChainServiceClient, { addresses: [address] });
  for (let k = 0; k < chains; k++) {
    const { spec, problems } = parseChainDocument(chainText(k));
    if (!spec) throw new Error(`chain ${k}: ${JSON.stringify(problems)}`);
    await unaryCall(client, client.putChain, { namespace: "default", spec, requireLiveWorkers: true });
  }
  client.close();
}

async function readPage(client: RunServiceClient, chain: number, url: string): Promise<string> {
  const request = StartRunRequest.fromPartial({
    namespace: "default",
    method: `bench.pages.v${chain + 1}.Pages/Read`,
    input: { $case: "json", value: JSON.stringify({ url }) },
  });
  const { runId } = await unaryCall(client, client.startRun, request);
  for (;;) {
    const result = await unaryCall(client, client.getResult, {
      namespace: "default",
      runId,
      wait: { seconds: 20n, nanos: 0 },
    });
    if (result.status < RunStatus.RUN_STATUS_SUCCEEDED) continue;
    if (result.status !== RunStatus.RUN_STATUS_SUCCEEDED)
      return `${RunStatus[result.status]} ${result.failure?.message ?? ""}`;
    const data = result.output?.data;
    // The one field of the output is the string of field 1.
    return data?.$case === "inline" ? decodeLine(data.value) : "";
  }
}

/** The string of field 1 of a message that has no other. */
function decodeLine(bytes: Uint8Array): string {
  let at = 1;
  let shift = 0;
  let length = 0;
  for (;;) {
    const byte = bytes[at++] ?? 0;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
    shift += 7;
  }
  return Buffer.from(bytes.subarray(at, at + length)).toString("utf8");
}
