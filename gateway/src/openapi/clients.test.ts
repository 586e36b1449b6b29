/** Client generators for TypeScript accept the document, and what they write compiles and has the types of the contract. */
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { contractsOf, documentOf, protos } from "./document-fixture.js";

const root = join(import.meta.dirname, "../../..");
const tools = join(root, "test/clients/node_modules/.bin");
const run = promisify(execFile);

let folder: string;
let document: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "taskmesh-clients-"));
  document = join(folder, "openapi.json");
  writeFileSync(document, JSON.stringify(documentOf(contractsOf(protos))));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Each generator with a use of what it writes: right types pass, a wrong one is an error. */
const generators: [name: string, command: (out: string) => [string, string[]], use: string][] = [
  [
    "openapi-typescript",
    (out) => [join(tools, "openapi-typescript"), [document, "-o", join(out, "index.ts")]],
    `import type { paths } from "./index.js";
     type Call = paths["/v1/acme.ruled.v1.RuledActions/Order"]["post"];
     export const input: NonNullable<Call["requestBody"]>["content"]["application/json"] = { at: "", first: 1, kind: "KIND_SEA" };
     export const output: Call["responses"][200]["content"]["application/json"] = { id: "a" };
     // @ts-expect-error: a number
     export const wrong: typeof input = { at: "", first: "1" };`,
  ],
  [
    "openapi-typescript-codegen",
    (out) => [join(root, "node_modules/.bin/openapi"), ["--input", document, "--output", out]],
    `import { AcmeRuledV1RuledActionsService as service } from "./index.js";
     export const answer = service.acmeRuledV1RuledActionsOrder({ requestBody: { at: "", first: 1 } } as never);
     // @ts-expect-error: there is no such call
     service.acmeRuledV1RuledActionsOther();`,
  ],
  [
    "@hey-api/openapi-ts",
    (out) => [
      join(tools, "openapi-ts"),
      ["-i", document, "-o", out, "-p", "@hey-api/typescript", "@hey-api/sdk", "@hey-api/client-fetch"],
    ],
    `import { acmeRuledV1RuledActionsOrder as order, getRun } from "./index.js";
     export const answer = order({ body: { at: "", first: 1, way: undefined } as never });
     export const run = getRun({ path: { runId: "a" }, query: { omitPayloads: true } });
     // @ts-expect-error: the id is missing
     getRun({ query: {} });`,
  ],
];

describe("clients of the document", () => {
  it.each(generators)(
    "are written by %s",
    async (name, command, use) => {
      const out = join(folder, name.replace("/", "-"));
      mkdirSync(out);
      const [file, args] = command(out);
      await run(file, args, { cwd: root, timeout: 200_000 });
      writeFileSync(join(out, "use.ts"), use);
      const options = ["--noEmit", "--strict", "--skipLibCheck", "--target", "es2022", "--module", "esnext"];
      const lib = ["--moduleResolution", "bundler", "--lib", "es2022,dom,dom.iterable"];
      const { stdout } = await run(join(tools, "tsc"), [...options, ...lib, "use.ts"], {
        cwd: out,
        timeout: 200_000,
      }).catch((error: { stdout: string }) => error);
      expect(stdout).toBe("");
    },
    500_000,
  );
});
