import { createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { builtinActions, builtinConfig, builtinDescriptors, builtinServices } from "./index.js";

const set = fromBinary(FileDescriptorSetSchema, builtinDescriptors);
const registry = createFileRegistry(set);

describe("the built-in actions", () => {
  it("implement every rpc of their services, and nothing else", () => {
    const declared = builtinServices.flatMap((name) =>
      registry.getService(name)!.methods.map((method) => `${name}/${method.name}`),
    );
    const implemented = builtinActions(builtinConfig({})).map(({ method }) => method);
    expect(implemented.toSorted()).toEqual(declared.toSorted());
    expect(implemented).toContain("taskmesh.http.v1.HttpActions/Request");
  });

  it("describe themselves: every service and rpc has its comment", () => {
    const own = set.file.filter((file) =>
      file.service.some(({ name }) => builtinServices.includes(`${file.package}.${name}`)),
    );
    expect(own).toHaveLength(builtinServices.length);
    for (const file of own) {
      const commented = new Set(
        file.sourceCodeInfo!.location.filter((at) => at.leadingComments).map((at) => at.path.join(".")),
      );
      for (const [at, service] of file.service.entries()) {
        expect(commented, service.name).toContain(`6.${at}`);
        for (const [index, method] of service.method.entries())
          expect(commented, method.name).toContain(`6.${at}.2.${index}`);
      }
    }
  });

  it("bring every import along, dependencies first", () => {
    const seen = new Set<string>();
    for (const file of set.file) {
      for (const dependency of file.dependency) expect(seen, file.name).toContain(dependency);
      seen.add(file.name);
    }
  });

  it("read their configuration and name every entry that is wrong", () => {
    const env = { TASKMESH_HTTP_ALLOW: "127.0.0.1/32, intranet.example", TASKMESH_ADDRESS: "mesh:7400" };
    expect(builtinConfig(env)).toMatchObject({
      http: { allow: ["127.0.0.1/32", "intranet.example"] },
      mesh: { addresses: [{ host: "mesh", port: 7400 }], namespace: "default" },
    });
    expect(builtinConfig({}).http).toEqual({ allow: [] });
    expect(() => builtinConfig({ TASKMESH_HTTP_ALLOW: "10.0.0.0/99,http://x" })).toThrow(
      /TASKMESH_HTTP_ALLOW: .*"10\.0\.0\.0\/99", "http:\/\/x"/,
    );
  });
});
