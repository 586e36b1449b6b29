/**
 * A page of 20 MB through a chain, on every transport: fetched, selected from, and given back. Neither the page nor its text fits into
 * a message of the broker or of gRPC, so each passes every border by reference.
 */
import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { builtinActions, builtinConfig, builtinDescriptors } from "@taskmesh/actions";
import { EventKind, RunStatus } from "@taskmesh/proto";
import { formatAddress, inlineBytesMax } from "@taskmesh/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { countOf, type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";

const chain = "acme.pages.v1.Chains/Read";
const pageBytes = 20 * 1024 * 1024;
const paragraph = `${"words of a long page ".repeat(50).trim()} é`;
const paragraphs = Math.ceil(pageBytes / Buffer.byteLength(`<p>${paragraph}</p>`));
const page = `<!doctype html><title>long</title>${`<p>${paragraph}</p>`.repeat(paragraphs)}`;
const text = Array.from({ length: paragraphs }, () => paragraph).join("\n");

let web: Server;
let served = 0;
let mesh: InProcessMesh | undefined;

beforeAll(async () => {
  web = createServer((_request, response) => {
    served += 1;
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(page);
  });
  await new Promise<void>((resolve) => web.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  await mesh?.stop();
  mesh = undefined;
});
afterAll(() => {
  web.closeAllConnections();
  web.close();
});

const cel = (value: string) => ({ kind: { $case: "cel" as const, value } });

async function open(on: "servers" | "embedded", transport: "jetstream" | "relay" | "memory"): Promise<InProcessMesh> {
  const started = await startInProcessMesh({ on });
  mesh = started;
  const env = { TASKMESH_HTTP_ALLOW: "127.0.0.1", TASKMESH_ADDRESS: formatAddress(started.address) };
  await started.serve(builtinActions(builtinConfig(env)), {
    descriptors: builtinDescriptors,
    ...(transport === "memory" ? { carrier: started.coordinator.carrier } : { transports: [transport] }),
  });
  await started.putChain({
    contract: { name: chain, input: { url: "string" }, output: { text: "string", count: "int32", size: "int64" } },
    steps: [
      {
        id: "fetch",
        call: "taskmesh.http.v1.HttpActions/Request",
        input: { url: cel("input.url"), max_bytes: cel(String(60 * 1024 * 1024)) },
      },
      {
        id: "pick",
        call: "taskmesh.html.v1.HtmlActions/Select",
        input: {
          html: cel("steps.fetch.output.text"),
          css: cel("'p'"),
          join: cel("'\\n'"),
          limit: cel("100000"),
          text_only: cel("true"),
        },
      },
    ],
    output: {
      text: cel("steps.pick.output.text"),
      count: cel("steps.pick.output.count"),
      size: cel("steps.fetch.output.size_bytes"),
    },
  });
  return started;
}

const digest = (bytes: Uint8Array | string): string => createHash("sha256").update(bytes).digest("hex");

/** A stored payload, whole. */
function readPayload(from: InProcessMesh, reference: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const stream = from.payloads.getPayload({ namespace: "default", reference });
    stream.on("data", ({ chunk }: { chunk: Buffer }) => chunks.push(chunk));
    stream.on("error", reject);
    stream.on("end", () => resolve(Buffer.concat(chunks)));
  });
}

describe("a page of 20 MB", () => {
  it.each([
    ["jetstream", "servers"],
    ["relay", "servers"],
    ["memory", "embedded"],
  ] as const)("is fetched, read and given back whole by %s on %s", { timeout: 180_000 }, async (transport, on) => {
    const started = await open(on, transport);
    const before = served;
    const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/`;
    const runId = await started.start({ method: chain, input: { $case: "json", value: JSON.stringify({ url }) } });
    const result = await started.result(runId);
    expect(result.failure).toBeUndefined();
    expect(result.status).toBe(RunStatus.RUN_STATUS_SUCCEEDED);
    expect(served).toBe(before + 1);
    const { data, sizeBytes, sha256 } = result.output!;
    expect(Number(sizeBytes)).toBeGreaterThan(inlineBytesMax);
    expect(data?.$case).toBe("reference");
    const output = await readPayload(started, String(data?.value));
    expect(digest(output)).toBe(sha256.toString("hex"));
    // Field 1 of the output: tag, length in four bytes, text.
    expect(output[0]).toBe(0x0a);
    expect(digest(output.subarray(5, 5 + Buffer.byteLength(text)))).toBe(digest(text));
    const history = await started.history(runId);
    expect(countOf(history, EventKind.EVENT_KIND_STEP_SUCCEEDED)).toBe(2);
    expect(history.map(({ attempt }) => attempt).filter((attempt) => attempt > 1)).toEqual([]);
  });
});
