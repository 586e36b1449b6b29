import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, relative } from "node:path";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { CliError, exitCode } from "./exit.js";
import { generate } from "./generate.js";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "taskmesh-gen-test-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, body: string, header = 'syntax = "proto3";\npackage acme.v1;\n'): void {
  mkdirSync(dirname(join(folder, name)), { recursive: true });
  writeFileSync(join(folder, name), `${header}${body}`);
}
const service = `// Says hello.
service Greeter {
  // Greet greets.
  rpc Greet(GreetRequest) returns (GreetResponse);
}
message GreetRequest { string name = 1; }
message GreetResponse { string text = 1; }
`;
const run = (options: { proto?: string; out?: string } = {}) => generate({ folder, out: "gen", ...options });

/** The set that gen/descriptors.ts holds. */
function embedded() {
  const source = readFileSync(join(folder, "gen/descriptors.ts"), "utf8");
  const base64 = [...source.matchAll(/^ {4}"([^"]+)",$/gm)].map(([, line]) => line).join("");
  return fromBinary(FileDescriptorSetSchema, Buffer.from(base64, "base64"));
}

describe("taskmesh gen", () => {
  it("makes types and descriptors, with comments for the catalogue", async () => {
    write("greet.proto", service);
    const result = await run();
    expect(result.services).toEqual(["acme.v1.Greeter"]);
    expect(readdirSync(join(folder, "gen")).sort()).toEqual(["descriptors.ts", "greet.ts"]);
    expect(readFileSync(join(folder, "gen/greet.ts"), "utf8")).toContain("export const GreeterService");
    const comments = embedded().file[0]?.sourceCodeInfo?.location.map((location) => location.leadingComments.trim());
    expect(comments).toEqual(["Says hello.", "Greet greets."]);
  });

  it("knows the files that Taskmesh ships, generates those that are needed, embeds none of them", async () => {
    const imports = [
      "buf/validate/validate",
      "google/protobuf/timestamp",
      "google/api/annotations",
      "taskmesh/v1/options",
    ];
    const rules = `${imports.map((name) => `import "${name}.proto";`).join("\n")}
      service S { rpc M(A) returns (A) {
        option (taskmesh.v1.action) = {idempotent: true};
        option (google.api.http) = {post: "/m" body: "*"};
      } }
      message A { string s = 1 [(buf.validate.field).string.min_len = 1]; google.protobuf.Timestamp at = 2; }`;
    write("rules.proto", rules);
    const { files } = await run();
    expect(files.sort()).toEqual(["descriptors.ts", "google/protobuf/timestamp.ts", "rules.ts"]);
    expect(embedded().file.map((file) => file.name)).toEqual(["rules.proto"]);
  });

  it("prefers a proto/ folder, and keeps the folders in it", async () => {
    write("proto/acme/v1/greet.proto", service);
    write("elsewhere.proto", "nonsense");
    expect((await run()).files.sort()).toEqual(["acme/v1/greet.ts", "descriptors.ts"]);
  });

  it("names file, line and column of what does not compile, and leaves what was generated before", async () => {
    write("greet.proto", service);
    await run();
    write("greet.proto", service.replace("(GreetRequest)", "(GretRequest)"));
    const error = await run().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(CliError);
    expect((error as CliError).code).toBe(exitCode.bad);
    const shown = relative(".", join(folder, "greet.proto"));
    expect((error as CliError).message).toBe(`${shown}:6:13 cannot find \`GretRequest\` in this scope`);
    expect(readdirSync(join(folder, "gen"))).toContain("greet.ts");
  });

  it("replaces what it wrote, and nothing that it did not write", async () => {
    write("greet.proto", service);
    await run();
    rmSync(join(folder, "greet.proto"));
    write("other.proto", service);
    await run();
    expect(readdirSync(join(folder, "gen")).sort()).toEqual(["descriptors.ts", "other.ts"]);
    mkdirSync(join(folder, "src"));
    writeFileSync(join(folder, "src/mine.ts"), "mine");
    await expect(run({ out: "src" })).rejects.toThrow(/did not write/);
    expect(readdirSync(join(folder, "src"))).toEqual(["mine.ts"]);
  });

  it("says what to do in a folder without contracts", async () => {
    await expect(run()).rejects.toMatchObject({ code: exitCode.usage, hint: expect.stringContaining("taskmesh init") });
  });
});
