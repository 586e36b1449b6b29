import { Validator } from "@seriousme/openapi-schema-validator";
import { createLogger, type GatewayConfig } from "@taskmesh/runtime";
import { beforeAll, describe, expect, it } from "vitest";
import { createAjv, OpenApiCheck } from "../../../test/fixtures/openapi-check.js";
import { GatewayContext } from "../context.js";
import { ContractBook } from "../contract-book.js";
import { ContractCache } from "../contracts.js";
import { createServer } from "../server.js";
import { Upstream } from "../upstream.js";
import { contractsOf, documentOf, protos } from "./document-fixture.js";

// biome-ignore lint/suspicious/noExplicitAny: tests look into documents of every shape
let document: any;
beforeAll(() => {
  document = documentOf(contractsOf(protos));
});

describe("the API document", () => {
  it("is valid OpenAPI 3.1, and every reference leads somewhere", async () => {
    const result = await new Validator().validate(structuredClone(document));
    expect(result.errors ?? []).toEqual([]);
    const names = [...JSON.stringify(document).matchAll(/"#\/components\/(\w+)\/([^"]+)"/g)];
    expect(names.length).toBeGreaterThan(100);
    for (const [ref, kind, name] of names) expect(document.components[kind!][name!], ref).toBeDefined();
  });

  it("is the same text for the same contracts, wherever it is made", () => {
    expect(JSON.stringify(documentOf(contractsOf(protos)))).toBe(JSON.stringify(document));
    const paths = Object.keys(document.paths);
    expect(paths).toEqual([...paths].sort());
  });

  it("names every operation once", () => {
    const operations = Object.values(document.paths).flatMap((item) => Object.values(item as object));
    const ids = operations.map(({ operationId }) => operationId);
    expect(new Set(ids).size).toBe(ids.length);
    expect(ids).toContain("acme.ruled.v1.RuledActions.Order");
  });

  it("offers the outputs of an rpc that returns a stream as they come, beside its result", () => {
    const mediaOf = (rpc: string) =>
      Object.keys(document.paths[`/v1/acme.ruled.v1.RuledActions/${rpc}`].post.responses["200"].content);
    expect(mediaOf("Order")).toEqual(["application/json"]);
    expect(mediaOf("Track")).toEqual(["application/json", "text/event-stream", "application/x-ndjson"]);
  });

  it("has every route of the server, and no other", async () => {
    const config: GatewayConfig = {
      ...{ httpAddress: { host: "127.0.0.1", port: 0 }, coordinator: { addresses: [{ host: "127.0.0.1", port: 1 }] } },
      ...{ namespaces: ["default"], tokens: { tokens: [] }, logLevel: "silent", stopTimeoutMs: 1, warnings: [] },
    };
    const log = createLogger("gateway", { level: "silent" });
    const upstream = new Upstream(config.coordinator, log);
    const contracts = new ContractCache(upstream);
    const book = new ContractBook(upstream, contracts, log);
    const context = new GatewayContext(config, log, upstream, contracts, book, new AbortController().signal);
    const app = createServer(context);
    await app.ready();
    const served = app
      .printRoutes({ commonPrefix: false, includeHooks: false })
      .split("\n")
      .flatMap(routesOfLine(new Map()));
    upstream.close();
    const own = Object.entries(documentOf([]).paths).flatMap(([path, item]) =>
      Object.keys(item as object).map((verb) => `${verb.toUpperCase()} ${path}`),
    );
    const undocumented = new Set(["POST /v1/{service}/{method}", "HEAD /healthz", "HEAD /readyz"]);
    const expected = served.filter((route) => !undocumented.has(route) && !/ \/(docs|\*)/.test(route));
    expect(own.sort()).toEqual([...new Set(expected)].sort());
  });

  it("catches answers that break it", () => {
    const check = new OpenApiCheck(document);
    const answer = (status: number, json: unknown, type = "application/json") => ({
      ...{ status, json, text: JSON.stringify(json), headers: { "content-type": type } },
    });
    const order = "/v1/acme.ruled.v1.RuledActions/Order";
    expect(check.faultOf("POST", order, answer(200, { id: "a" }))).toBeUndefined();
    expect(check.faultOf("POST", order, answer(200, { id: 5 }))).toContain("must be string");
    expect(check.faultOf("POST", order, answer(200, { idd: "a" }))).toContain("additional properties");
    expect(check.faultOf("POST", order, answer(200, { id: "a" }, "text/plain"))).toContain("no text/plain");
    expect(check.faultOf("POST", order, answer(201, { id: "a" }))).toContain("201");
    expect(check.faultOf("POST", order, answer(400, { status: 400 }, "application/problem+json"))).toContain(
      "required",
    );
    expect(check.faultOf("GET", "/v1/nothing", answer(200, {}))).toContain("not in the document");
  });
});

/** Reads the tree that the library prints: four characters a level, then a part of the path and its methods. */
function routesOfLine(parts: Map<number, string>): (line: string) => string[] {
  return (line) => {
    const [, indent = "", part = "", methods] = /^((?:[│ ] {3})*)[├└]── (\S*)(?: \(([^)]*)\))?/.exec(line) ?? [];
    const depth = indent.length / 4;
    const path = `${depth === 0 ? "" : (parts.get(depth - 1) ?? "")}${part}`;
    parts.set(depth, path);
    if (methods === undefined) return [];
    const shown = (path === "" ? "/" : path).replace(/:(\w+)/g, "{$1}");
    return methods.split(", ").map((method) => `${method} ${shown}`);
  };
}

describe("schemas", () => {
  const schemaOf = (name: string) => document.components.schemas[name];

  it("carry comments, rules and what only words can say", () => {
    const order = schemaOf("acme.ruled.v1.OrderRequest");
    expect(order).toMatchObject({
      description: "What is wanted.\n\nRule: first must not be above last",
      required: ["at"],
      not: { anyOf: [{ required: ["road", "rail"] }] },
      additionalProperties: false,
      properties: {
        mail: { type: "string", format: "email", description: "Whom to tell." },
        code: { pattern: "^[A-Z]{3}$" },
        short: { minLength: 2, maxLength: 4 },
        first: { type: "integer", minimum: 1, exclusiveMaximum: 100 },
        last: { type: "string", format: "int64", description: 'Bounds: `{"lte":"9007199254740993"}`.' },
        tags: { type: "array", minItems: 1, maxItems: 3, uniqueItems: true, items: { pattern: "^t-" } },
        prices: { type: "object", maxProperties: 2, additionalProperties: { type: "number", exclusiveMinimum: 0 } },
        kind: { allOf: [{ $ref: "#/components/schemas/acme.ruled.v1.Kind" }], enum: ["KIND_LAND", "KIND_SEA"] },
        at: { type: "string", format: "date-time" },
        maybe: { type: "string", description: 'Where it is set: `{"minLength":5}`.' },
        perl: { type: "string", description: "Matches `(?i)x` (RE2)." },
        road: { description: "One of road, rail." },
        part: { description: "Rule: the part must be whole" },
      },
    });
    expect(order.properties.maybe.minLength).toBeUndefined();
    expect(order.properties.perl.pattern).toBeUndefined();
    expect(schemaOf("acme.ruled.v1.Kind").description).toBe("Sorts of orders.\n\n- KIND_LAND: By land.");
    const operation = document.paths["/v1/acme.ruled.v1.RuledActions/Order"].post;
    expect(operation).toMatchObject({ summary: "Order takes an order.", tags: ["acme.ruled.v1.RuledActions"] });
    expect(document.tags[1]).toEqual({ name: "acme.ruled.v1.RuledActions", description: "Actions with rules." });
  });

  it("are kept by all examples", () => {
    const ajv = createAjv();
    ajv.addSchema(document, "document");
    let examples = 0;
    const visit = (value: unknown, pointer: string): void => {
      if (typeof value !== "object" || value === null) return;
      if ("example" in value && "schema" in value) {
        examples++;
        const validate = ajv.compile({ $ref: `document#${pointer}/schema` });
        expect(validate(value.example), `${pointer}: ${ajv.errorsText(validate.errors)}`).toBe(true);
      }
      for (const [key, child] of Object.entries(value)) {
        visit(child, `${pointer}/${encodeURIComponent(key.replaceAll("~", "~0").replaceAll("/", "~1"))}`);
      }
    };
    visit(document, "");
    expect(examples).toBeGreaterThan(30);
  });

  it("of two types with one name are both there, each contract with its own", () => {
    const proto = (type: string) => `
      syntax = "proto3"; package acme.two.v1;
      service ${type === "string" ? "A" : "B"} { rpc Do(Shared) returns (Inner); }
      message Shared { Inner inner = 1; } message Inner { ${type} value = 1; }`;
    const first = contractsOf({ "a.proto": proto("string") }, "aaaaaaaaaaaa");
    const second = contractsOf({ "b.proto": proto("bool") }, "bbbbbbbbbbbb");
    const both = documentOf([...first, ...second]);
    const ref = (path: string) =>
      both.paths[path].post.requestBody.content["application/json"].schema.$ref.split("/").at(-1);
    expect(ref("/v1/acme.two.v1.A/Do")).toBe("acme.two.v1.Shared");
    expect(ref("/v1/acme.two.v1.B/Do")).toBe("acme.two.v1.Shared.bbbbbbbb");
    const { schemas } = both.components;
    expect(schemas["acme.two.v1.Shared.bbbbbbbb"].properties.inner.$ref).toContain("acme.two.v1.Inner.bbbbbbbb");
    expect(schemas["acme.two.v1.Inner"].properties.value.type).toBe("string");
    expect(schemas["acme.two.v1.Inner.bbbbbbbb"].properties.value.type).toBe("boolean");
  });
});

describe("declared routes in the document", () => {
  it("spell patterns out, and share a path whatever their variables are called", () => {
    const shelves = document.paths["/v1/shelves/{name}"];
    expect(Object.keys(shelves).sort()).toEqual(["delete", "get", "patch", "put"]);
    const resource = document.paths["/v1/repeat/first/{first}/second/{second}/bool/{info.f_bool}:pathresource"].get;
    expect(resource.parameters.slice(0, 3)).toMatchObject([
      { name: "first", in: "path", description: "Part of `info.f_string`, which is `first/*`." },
      { name: "second", in: "path" },
      { name: "info.f_bool", in: "path", schema: { type: "boolean" } },
    ]);
    const query = resource.parameters.map(({ name }: { name?: string }) => name);
    expect(query).toContain("info.pBool");
    expect(query).not.toContain("info.fBool");
  });

  it("have the body and the answer that the contract says", () => {
    const { patch, put, delete: remove } = document.paths["/v1/shelves/{name}"];
    const book = { $ref: "#/components/schemas/acme.shelf.v1.Book" };
    expect(patch.requestBody.content["application/json"].schema).toEqual(book);
    expect(patch.responses["200"].content["application/json"].schema).toEqual({ anyOf: [book, { type: "null" }] });
    expect(put.responses["200"].content["application/json"].schema.anyOf[0]).toEqual({ type: "string" });
    expect(remove.requestBody).toBeUndefined();
    expect(remove.responses.default).toEqual({ $ref: "#/components/responses/Problem" });
  });
});
