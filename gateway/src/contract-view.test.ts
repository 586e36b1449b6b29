import { describe, expect, it } from "vitest";
import { describeContract } from "./contract-view.js";
import { type Contract, splitMethod } from "./contracts.js";
import { printContract } from "./proto-text.js";
import { meshRegistry } from "./render.js";

function contractOf(method: string): Contract {
  const [service, name] = splitMethod(method);
  const rpc = meshRegistry.getService(service)!.methods.find((candidate) => candidate.name === name)!;
  return { id: "f1", method, input: rpc.input, output: rpc.output, registry: meshRegistry, rpc };
}

const contract = contractOf("taskmesh.v1.RunService/StartRun");

describe("a contract for readers", () => {
  it("lists every message and enum that it is made of, with JSON names", () => {
    const json = describeContract(contract);
    expect(json).toMatchObject({
      id: "f1",
      inputType: "taskmesh.v1.StartRunRequest",
      messages: {
        "taskmesh.v1.StartRunRequest": {
          fields: expect.arrayContaining([
            expect.objectContaining({ name: "idempotencyKey", protoName: "idempotency_key", type: "string" }),
            expect.objectContaining({ name: "labels", type: "map<string, string>" }),
            expect.objectContaining({ name: "payload", oneof: "input", type: "taskmesh.v1.Payload" }),
            expect.objectContaining({ name: "timeout", type: "google.protobuf.Duration" }),
          ]),
        },
        "taskmesh.v1.Payload": { fields: expect.any(Array) },
      },
    });
    expect(Object.keys(json["messages"] as object).filter((name) => name.startsWith("google."))).toEqual([]);
  });

  it("is printed with the word for what its rpc returns", () => {
    expect(printContract(contractOf("taskmesh.v1.RunService/WatchRun"))).toContain(
      "rpc WatchRun(taskmesh.v1.WatchRunRequest) returns (stream taskmesh.v1.WatchRunResponse);",
    );
    expect(printContract(contract)).toContain("returns (taskmesh.v1.StartRunResponse);");
  });

  it("ends on types that hold themselves", () => {
    const { messages } = describeContract(contractOf("taskmesh.v1.RunService/GetResult")) as { messages: object };
    expect(Object.keys(messages)).toContain("taskmesh.v1.Failure");
  });

  it("is written as .proto text", () => {
    const text = printContract(contract);
    expect(text).toContain(`service taskmesh.v1.RunService {
  rpc StartRun(taskmesh.v1.StartRunRequest) returns (taskmesh.v1.StartRunResponse);
}`);
    expect(text).toContain("  oneof input {\n    taskmesh.v1.Payload payload = 3;\n    string json = 4;\n  }");
    expect(text).toContain("  map<string, string> labels = 6;");
    expect(printContract(contractOf("taskmesh.v1.RunService/ListRuns"))).toContain(
      "enum taskmesh.v1.RunStatus {\n  RUN_STATUS_UNSPECIFIED = 0;",
    );
  });
});
