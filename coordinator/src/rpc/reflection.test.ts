import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import {
  type FileDescriptorProto,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
} from "@bufbuild/protobuf/wkt";
import { Metadata } from "@grpc/grpc-js";
import { reflectionV1, reflectionV1alpha } from "@taskmesh/proto";
import { createClient, createLogger, formatAddress, status, statusError } from "@taskmesh/runtime";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { contractsOf, parseDescriptorSet } from "../contracts/descriptors.js";
import { createHealth } from "./health.js";
import { createListener, type Listener } from "./listener.js";
import { addReflection, namespaceKey, type ReflectedContract } from "./reflection.js";

type FileInit = MessageInitShape<typeof FileDescriptorProtoSchema>;

const text = (name: string, number: number) => ({
  name,
  number,
  type: Type.STRING,
  label: Label.OPTIONAL,
  jsonName: name,
});

/** One rpc, in a file of its own, whose request holds a message of an imported file. */
function contract(pkg: string, service: string, rpc: string, common: FileInit, path: string): ReflectedContract {
  const file = create(FileDescriptorProtoSchema, {
    name: path,
    package: pkg,
    syntax: "proto3",
    dependency: [common.name!],
    messageType: [
      {
        name: `${rpc}Request`,
        field: [
          text("text", 1),
          {
            name: "page",
            number: 2,
            type: Type.MESSAGE,
            typeName: `.${common.package}.Page`,
            label: Label.OPTIONAL,
            jsonName: "page",
          },
        ],
      },
      { name: `${rpc}Response`, field: [text("answer", 1)] },
    ],
    service: [
      {
        name: service,
        method: [{ name: rpc, inputType: `.${pkg}.${rpc}Request`, outputType: `.${pkg}.${rpc}Response` }],
      },
    ],
  });
  const set = create(FileDescriptorSetSchema, { file: [create(FileDescriptorProtoSchema, common), file] });
  return contractsOf(parseDescriptorSet(toBinary(FileDescriptorSetSchema, set)))[0]!;
}

const common = (pkg: string, field: string): FileInit => ({
  name: "common/page.proto",
  package: pkg,
  syntax: "proto3",
  messageType: [{ name: "Page", field: [text(field, 1)] }],
});

// Two teams, two different files under one name.
const score = contract("acme.pages.v1", "PageActions", "Score", common("acme.common", "url"), "acme/pages.proto");
const rank = contract("beta.v1", "Ranks", "Rank", common("beta.common", "address"), "beta/ranks.proto");
// One service whose methods come from two chains.
const check = contract(
  "acme.chains.v1",
  "Pages",
  "Check",
  common("acme.common", "url"),
  "acme/chains/v1/Pages/Check.chain.proto",
);
const recheck = contract(
  "acme.chains.v1",
  "Pages",
  "Recheck",
  common("acme.common", "url"),
  "acme/chains/v1/Pages/Recheck.chain.proto",
);

let listener: Listener;

beforeAll(async () => {
  const health = createHealth([]);
  health.setDatabase(true);
  listener = createListener({
    address: { host: "127.0.0.1", port: 0 },
    tokens: { tokens: [] },
    log: createLogger("test", { level: "silent" }),
    services(made) {
      health.addTo(made.server);
      addReflection(made, {
        defaultNamespace: "default",
        contracts(namespace) {
          if (namespace === "default") return [score, check, recheck];
          if (namespace === "beta") return [rank];
          if (namespace === "both") return [score, rank];
          throw statusError({ reason: "NAMESPACE_NOT_FOUND", message: `there is no namespace "${namespace}"` });
        },
      });
      const bytes = (value: Buffer): Buffer => value;
      // Answers { answer: "ok" }, whatever is asked.
      made.server.register(
        "/acme.pages.v1.PageActions/Score",
        (_call: unknown, callback: (error: null, response: Buffer) => void) =>
          callback(null, Buffer.from("\x0a\x02ok")),
        bytes,
        bytes,
        "unary",
      );
    },
  });
  await listener.start();
});
afterAll(() => listener.stop());

type Question = NonNullable<reflectionV1.ServerReflectionRequest["messageRequest"]>;
type Answer = reflectionV1.ServerReflectionResponse["messageResponse"];

/** Asks on one stream. */
async function ask(questions: Question[], namespace?: string, alpha = false): Promise<Answer[]> {
  const Client = alpha ? reflectionV1alpha.ServerReflectionClient : reflectionV1.ServerReflectionClient;
  const client = createClient(
    Client as typeof reflectionV1.ServerReflectionClient,
    { addresses: [listener.address] },
    { streams: true },
  );
  try {
    const metadata = new Metadata();
    if (namespace) metadata.set(namespaceKey, namespace);
    const stream = client.serverReflectionInfo(metadata);
    for (const messageRequest of questions) stream.write({ host: "h", messageRequest });
    stream.end();
    const answers: Answer[] = [];
    for await (const response of stream)
      answers.push((response as reflectionV1.ServerReflectionResponse).messageResponse);
    return answers;
  } finally {
    client.close();
  }
}

const filesOf = (answer: Answer): FileDescriptorProto[] => {
  if (answer?.$case !== "fileDescriptorResponse") throw new Error(JSON.stringify(answer));
  return answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
};

const symbol = (value: string): Question => ({ $case: "fileContainingSymbol", value });

describe("reflection", () => {
  it.each([false, true])("lists our services and the live contracts of the namespace (v1alpha: %s)", async (alpha) => {
    const [answer] = await ask([{ $case: "listServices", value: "*" }], undefined, alpha);
    const names = answer?.$case === "listServicesResponse" ? answer.value.service.map(({ name }) => name) : [];
    expect(names).toEqual(
      expect.arrayContaining([
        "acme.chains.v1.Pages",
        "acme.pages.v1.PageActions",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "taskmesh.v1.RegistryService",
        "taskmesh.v1.RunService",
      ]),
    );
    expect(names).not.toContain("beta.v1.Ranks");
  });

  it("answers with every import, so that a client can link the files", async () => {
    for (const name of [
      "taskmesh.v1.RunService",
      "taskmesh.v1.RunService.StartRun",
      "taskmesh.v1.Failure",
      "acme.pages.v1.PageActions.Score",
    ]) {
      const files = filesOf((await ask([symbol(name)]))[0]);
      const names = new Set(files.map((file) => file.name));
      for (const file of files)
        for (const needed of file.dependency) expect(names, `${name}: ${file.name}`).toContain(needed);
    }
  });

  it("keeps two teams' files of one name apart within a stream", async () => {
    const byName: Question = { $case: "fileByFilename", value: "common/page.proto" };
    const answers = await ask([symbol("beta.v1.Ranks"), byName, symbol("acme.pages.v1.PageActions"), byName], "both");
    expect(filesOf(answers[1])[0]?.package).toBe("beta.common");
    expect(filesOf(answers[3])[0]?.package).toBe("acme.common");
    expect(filesOf(answers[0]).find(({ name }) => name === "common/page.proto")?.package).toBe("beta.common");
  });

  it("shows a service that two chains implement as one", async () => {
    const [file] = filesOf((await ask([symbol("acme.chains.v1.Pages")]))[0]);
    expect(file?.service[0]?.method.map(({ name }) => name)).toEqual(["Check", "Recheck"]);
    expect(file?.messageType.map(({ name }) => name).sort()).toEqual([
      "CheckRequest",
      "CheckResponse",
      "RecheckRequest",
      "RecheckResponse",
    ]);
  });

  it("finds extensions by number", async () => {
    const type = "google.protobuf.MethodOptions";
    const [numbers] = await ask([{ $case: "allExtensionNumbersOfType", value: type }]);
    const found = numbers?.$case === "allExtensionNumbersResponse" ? numbers.value.extensionNumber : [];
    expect(found.length).toBeGreaterThan(0);
    for (const extensionNumber of found) {
      const value = { containingType: type, extensionNumber };
      filesOf((await ask([{ $case: "fileContainingExtension", value }]))[0]);
    }
  });

  it("says what it does not know, and goes on", async () => {
    const answers = await ask([
      symbol("no.such.Thing"),
      { $case: "fileByFilename", value: "../../etc/passwd" },
      symbol("taskmesh.v1.Run"),
    ]);
    expect(answers[0]).toMatchObject({ $case: "errorResponse", value: { errorCode: status.NOT_FOUND } });
    expect(answers[1]).toMatchObject({ $case: "errorResponse", value: { errorCode: status.NOT_FOUND } });
    expect(filesOf(answers[2])[0]?.name).toBe("taskmesh/v1/run.proto");
  });

  it("ends the stream of a caller from no namespace with a typed error", async () => {
    await expect(ask([symbol("x")], "nowhere")).rejects.toMatchObject({ code: status.NOT_FOUND });
  });
});

describe("buf curl", () => {
  const buf = (...args: string[]): Promise<string> =>
    promisify(execFile)(join(import.meta.dirname, "../../../node_modules/.bin/buf"), [
      "curl",
      "--protocol=grpc",
      "--http2-prior-knowledge",
      ...args,
    ]).then(({ stdout }) => stdout);
  const url = (path = ""): string => `http://${formatAddress(listener.address)}${path}`;

  it("lists the methods", async () => {
    const lines = (await buf("--list-methods", url())).trim().split("\n");
    expect(lines).toEqual(
      expect.arrayContaining([
        "acme.chains.v1.Pages/Check",
        "acme.chains.v1.Pages/Recheck",
        "acme.pages.v1.PageActions/Score",
        "grpc.health.v1.Health/Check",
        "taskmesh.v1.RunService/StartRun",
      ]),
    );
  });

  it("calls a registered method that it has no schema of", async () => {
    const answer = await buf("-d", '{"text":"a b","page":{"url":"http://x"}}', url("/acme.pages.v1.PageActions/Score"));
    expect(JSON.parse(answer)).toEqual({ answer: "ok" });
  });

  it("calls health", async () => {
    expect(JSON.parse(await buf("-d", "{}", url("/grpc.health.v1.Health/Check")))).toEqual({ status: "SERVING" });
  });
});
