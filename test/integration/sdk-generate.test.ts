/**
 * Clients that are generated from a live mesh: what is registered, written as .proto files and stubs, and called with them.
 *
 * TypeScript, Python, Go and Ruby are generated, built and run, the last two with the tools of the stock clients. Of the other languages what the
 * command says is looked at where their generators are missing.
 */
import { execFile } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { defineAction, fail } from "@taskmesh/action-sdk";
import type { Gateway } from "@taskmesh/gateway";
import { formatAddress } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createApi } from "../../cli/src/api.js";
import type { CliError } from "../../cli/src/exit.js";
import { generateSdk } from "../../cli/src/sdk/generate-sdk.js";
import { compileProtos } from "../fixtures/compile-protos.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { entriesOf } from "../fixtures/method-entries.js";
import { preparePython } from "../fixtures/python.js";
import { ask, startTestGateway } from "../fixtures/rest-gateway.js";
import { prepareStockClient } from "../fixtures/stock-clients.js";

const root = join(import.meta.dirname, "..", "..");
const folder = mkdtempSync(join(tmpdir(), "taskmesh-sdk-"));
const limitMs = 240_000;

const contract = `syntax = "proto3";
package shop.v1;
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "taskmesh/v1/options.proto";
// Prices of the shop.
service ShopActions {
  // Price says what something costs.
  rpc Price(PriceRequest) returns (PriceResponse) {
    option (taskmesh.v1.action) = {idempotent: true, retry: {max_attempts: 1}};
  }
}
message PriceRequest {
  // Which article.
  string article_id = 1 [(buf.validate.field).string.min_len = 2];
  int64 count = 2;
  Currency currency = 3;
  google.protobuf.Timestamp at = 4;
}
message PriceResponse {
  int64 total = 1;
  string customer = 2 [(taskmesh.v1.sensitive) = true];
}
enum Currency {
  CURRENCY_UNSPECIFIED = 0;
  CURRENCY_EUR = 1;
}
`;
const chain = (name: string): string => `
contract: { name: shop.v1.Shop/${name}, input: { article: string }, output: { total: int64 } }
steps:
  - { id: price, call: shop.v1.ShopActions/Price, input: { article_id: input.article, count: 2 } }
output: { total: steps.price.output.total }
`;

let mesh: InProcessMesh;
let gateway: Gateway;

interface Ended {
  code: number;
  stdout: string;
  stderr: string;
}
function run(command: string, args: string[], cwd: string, env: Record<string, string> = {}): Promise<Ended> {
  const options = { cwd, env: { ...process.env, NO_COLOR: "1", ...env }, maxBuffer: 32 << 20 };
  return new Promise((resolve) => {
    execFile(command, args, options, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : typeof error.code === "number" ? error.code : 1, stdout, stderr });
    });
  });
}
const main = join(root, "cli", "src", "main.ts");
const generate = (args: string[], env: Record<string, string> = {}): Promise<Ended> =>
  run(
    process.execPath,
    ["--import", "tsx", "--conditions=@taskmesh/source", main, "--url", gateway.address, "sdk", "generate", ...args],
    root,
    env,
  );

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  gateway = await startTestGateway([mesh.address.port]);
  const descriptors = compileProtos({ "shop/v1/shop.proto": contract }, { sourceInfo: true });
  const entry = entriesOf(descriptors, "shop.v1.ShopActions");
  const price = entry<{ articleId: string; count: bigint }, { total: bigint; customer: string }>("Price");
  await mesh.serve(
    [
      defineAction(price, ({ articleId, count }) => {
        if (articleId === "sold out") throw fail.final("SOLD_OUT", "there is none left");
        return { total: count * 5n, customer: "c" };
      }),
    ],
    { descriptors },
  );
  for (const name of ["Bill", "Offer"]) {
    const headers = { "content-type": "application/yaml" };
    const stored = await ask(gateway, "/api/v1/chains", { body: chain(name), headers });
    expect(stored.text).toContain(name);
  }
}, limitMs);
afterAll(async () => {
  await gateway?.stop();
  await mesh?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const api = () => createApi({ url: new URL(`http://${gateway.address.replace(/^http:../, "")}`), tls: {} });
const address = (): Record<string, string> => ({ TASKMESH_ADDRESS: formatAddress(mesh.address) });

describe("taskmesh sdk generate", () => {
  it(
    "writes a TypeScript client that type-checks, whose example runs",
    async () => {
      const out = join(folder, "ts");
      const written = await generate(["--lang", "ts", "--out", out, "shop.v1.ShopActions", "shop.v1.Shop"]);
      expect(written).toMatchObject({ code: 0, stderr: "" });
      expect(written.stdout).toContain("3 contracts, ts");
      const proto = readFileSync(join(out, "proto/shop/v1/shop.proto"), "utf8");
      expect(proto).toContain("// Price says what something costs.\n");
      expect(proto).toContain("option (taskmesh.v1.action) = { retry: { max_attempts: 1 } idempotent: true };");
      expect(proto).toContain("string article_id = 1 [(buf.validate.field) = { string: { min_len: 2 } }];");
      symlinkSync(join(root, "node_modules"), join(out, "node_modules"));
      const checked = await run(join(root, "node_modules/.bin/tsc"), [], out);
      expect(checked).toMatchObject({ code: 0, stdout: "" });

      const call = (input: string) =>
        run(process.execPath, ["--import", "tsx", "src/example.ts", input], out, address());
      const called = await call('{"article":"ab"}');
      expect(called.stderr).toBe("");
      const [line, ...rest] = called.stdout.trim().split("\n");
      expect(line).toBe('{"total":"10"}');
      expect(rest[0]).toMatch(/^run [0-9a-f-]{36} is on record$/);
      expect(rest[1]).toBe('{"total":"10"}');
      const failed = await call('{"article":"sold out"}');
      expect(failed.code).toBe(1);
      expect(failed.stderr).toContain("RUN_FAILED: ");
      expect(failed.stderr).toContain('SOLD_OUT: step "price": there is none left');

      writeFileSync(join(out, "src/typed.ts"), typedProgram);
      const typed = await run(process.execPath, ["--import", "tsx", "src/typed.ts"], out, address());
      expect(typed.stderr).toBe("");
      expect(JSON.parse(typed.stdout)).toEqual({
        one: true,
        waited: "15",
        failure: ["RUN_FAILED", "SOLD_OUT", false],
        violations: ["article_id"],
        cancelled: "RUN_ENDED",
      });
      expect((await run(join(root, "node_modules/.bin/tsc"), [], out)).stdout).toBe("");
    },
    limitMs,
  );

  it(
    "writes a Python client whose example runs",
    async () => {
      const peer = await preparePython();
      if ("missing" in peer) {
        if (process.env["CI"]) throw new Error(peer.missing);
        process.stderr.write(`the Python client was not tested: ${peer.missing}\n`);
        return;
      }
      const PATH = `${dirname(peer.python)}:${process.env["PATH"]}`;
      const out = join(folder, "python");
      const written = await generateSdk(api(), {
        language: "python",
        wanted: ["shop.v1.ShopActions/Price"],
        out,
        env: { PATH },
      });
      expect(written.missing).toEqual([]);
      expect(existsSync(join(out, "gen/shop/v1/shop_pb2_grpc.py"))).toBe(true);
      const input = '{"articleId":"ab","count":3}';
      const called = await run(peer.python, ["example.py", input], out, address());
      expect(called.stderr).toMatch(/^run [0-9a-f-]{36}$/m);
      expect(JSON.parse(called.stdout)).toEqual({ total: "15", customer: "c" });
    },
    limitMs,
  );

  /** A Go project that fetches nothing: with the libraries of the stock client, which are on this machine. */
  async function runGo(bin: string): Promise<Ended> {
    const out = join(folder, "go-built");
    const env = { PATH: `${bin}:${process.env["PATH"]}` };
    const written = await generateSdk(api(), { language: "go", wanted: ["shop.v1.Shop/Bill"], out, env });
    expect(written.missing).toEqual([]);
    const stock = join(root, "test/clients/go");
    const module = readFileSync(join(stock, "go.mod"), "utf8").replace(/^module .*$/m, "module meshclient");
    writeFileSync(join(out, "go.mod"), module.replace(/^tool \([^)]*\)\n/m, ""));
    writeFileSync(join(out, "go.sum"), readFileSync(join(stock, "go.sum")));
    return run("go", ["run", "-mod=mod", ".", '{"article":"ab"}'], out, address());
  }

  async function runRuby(): Promise<Ended> {
    const out = join(folder, "ruby-built");
    const written = await generateSdk(api(), { language: "ruby", wanted: ["shop.v1.Shop/Bill"], out });
    expect(written.missing).toEqual([]);
    return run("ruby", ["example.rb", '{"article":"ab"}'], out, address());
  }

  it("writes Go and Ruby clients that build, whose examples run", async () => {
    const examples = (["go", "ruby"] as const).map(async (language) => {
      const tools = await prepareStockClient(language);
      if ("missing" in tools) return process.env["CI"] ? Promise.reject(new Error(tools.missing)) : undefined;
      return language === "go" ? runGo(dirname(tools.command)) : runRuby();
    });
    for (const ended of await Promise.all(examples)) {
      if (ended === undefined) continue;
      expect(ended.code, ended.stderr).toBe(0);
      expect(JSON.parse(ended.stdout)).toEqual({ total: "10" });
    }
  }, 700_000);

  it(
    "writes everything but the stubs where their generator is missing, and says what to install and to run",
    async () => {
      // A PATH on which no generator is.
      const PATH = join(folder, "nothing");
      for (const lang of ["go", "java", "ruby", "php", "csharp", "cpp"]) {
        const out = join(folder, lang);
        const written = await generateSdk(api(), { language: lang, wanted: ["shop.v1"], out, env: { PATH } });
        const { missing, next, files } = written;
        expect(missing.length, lang).toBeGreaterThan(0);
        expect(next[0], lang).toBe("sh generate.sh");
        expect(readFileSync(join(out, "README.md"), "utf8"), lang).toContain(next.at(-1)!.slice(0, 10));
        expect(files, lang).toEqual(expect.arrayContaining(["README.md", "generate.sh", "proto/shop/v1/shop.proto"]));
        expect(readFileSync(join(out, "README.md"), "utf8"), lang).toContain("taskmesh-idempotency-key");
        expect(readFileSync(join(out, "generate.sh"), "utf8"), lang).toContain(missing[0]);
      }
    },
    limitMs,
  );

  it(
    "refuses what it can't do, and touches nothing then",
    async () => {
      const mine = join(folder, "mine");
      const refusal = (language: string, wanted: string[], out: string): Promise<CliError> =>
        generateSdk(api(), { language, wanted, out }).then(
          () => Promise.reject(new Error("it was written")),
          (error: CliError) => error,
        );
      expect((await refusal("cobol", [], mine)).message).toContain('"cobol" is no language');
      const unknown = await refusal("ts", ["shop.v2"], mine);
      expect([unknown.code, unknown.message]).toEqual([4, "the mesh has no method, service or package shop.v2"]);
      expect(existsSync(mine)).toBe(false);
      const foreign = await refusal("go", [], root);
      expect([foreign.code, foreign.message]).toEqual([2, `${root} holds files that this command did not write`]);
      expect(readdirSync(root)).toContain("package.json");
    },
    limitMs,
  );
});

const typedProgram = `import { MeshError } from "./client.js";
import { Currency } from "./gen/shop/v1/shop.js";
import { openMesh } from "./mesh.js";

const mesh = openMesh();
const input = { articleId: "ab", count: 3n, currency: Currency.CURRENCY_EUR, at: undefined };
const failed = async (work: Promise<unknown>): Promise<MeshError> => {
  const error: unknown = await work.then(
    () => new Error("it succeeded"),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof MeshError)) throw error;
  return error;
};
const first = await mesh.shopActions.price.start(input, { idempotencyKey: "one" });
const again = await mesh.shopActions.price.start(input, { idempotencyKey: "one" });
const { total } = await first.result({ timeoutMs: 60_000 });
const soldOut = await failed(mesh.shopActions.price({ ...input, articleId: "sold out" }));
const tooShort = await failed(mesh.shopActions.price({ ...input, articleId: "a" }));
console.log(
  JSON.stringify({
    one: first.runId !== "" && first.runId === again.runId,
    waited: String(total),
    failure: [soldOut.reason, soldOut.failure?.reason, soldOut.failure?.retryable],
    violations: tooShort.violations.map(({ field }) => field),
    cancelled: (await failed(first.cancel())).reason,
  }),
);
mesh.close();
`;
