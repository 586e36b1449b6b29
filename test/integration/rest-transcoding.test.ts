/** google.api.http from a socket to a worker and back: the calls of the public compliance suite, and what it does not try. */
import { createFileRegistry, fromBinary, fromJson, type JsonObject, type JsonValue, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import type { Gateway } from "@taskmesh/gateway";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { compileProtos } from "../fixtures/compile-protos.js";
import { echoAction } from "../fixtures/echo-actions.js";
import { type ClientBinding, toHttpRequest } from "../fixtures/http-client.js";
import { type InProcessMesh, startInProcessMesh } from "../fixtures/in-process-mesh.js";
import { faultsSeenByPrism } from "../fixtures/prism.js";
import { repeatProto, shelfProto } from "../fixtures/repeat-protos.js";
import { type Ask, ask, holdToDocument, startTestGateway } from "../fixtures/rest-gateway.js";

const descriptors = compileProtos({ "acme/repeat.proto": repeatProto, "acme/shelf.proto": shelfProto });
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, descriptors));
const methodsOf = (service: string) => registry.getService(service)!.methods.map(({ name }) => `${service}/${name}`);

let mesh: InProcessMesh;
let gateway: Gateway;
let handled = 0;

beforeAll(async () => {
  mesh = await startInProcessMesh({ on: "embedded" });
  const methods = [...methodsOf("acme.repeat.v1.RepeatActions"), ...methodsOf("acme.shelf.v1.ShelfActions")];
  const actions = methods.map((method) => echoAction(method, () => void handled++));
  await mesh.serve(actions, { descriptors, carrier: mesh.coordinator.carrier });
  gateway = await startTestGateway([mesh.address.port]);
  await holdToDocument(gateway);
});
afterAll(async () => {
  await gateway?.stop();
  await mesh?.stop();
});

/** The canonical form with every field that has a default. */
function canonical(type: string, json: JsonValue): JsonValue {
  const desc = registry.getMessage(type)!;
  return toJson(desc, fromJson(desc, json), { alwaysEmitImplicit: true });
}

const bindings: Record<string, ClientBinding> = {
  body: { verb: "POST", path: "/v1/repeat:body", body: "*" },
  bodyPut: { verb: "PUT", path: "/v1/repeat:bodyput", body: "*" },
  bodyPatch: { verb: "PATCH", path: "/v1/repeat:bodypatch", body: "*" },
  bodyInfo: { verb: "POST", path: "/v1/repeat:bodyinfo", body: "info" },
  query: { verb: "GET", path: "/v1/repeat:query" },
  simplePath: {
    verb: "GET",
    path: "/v1/repeat/{info.fString}/{info.fInt32}/{info.fDouble}/{info.fBool}/{info.fKingdom}:simplepath",
  },
  pathResource: {
    verb: "GET",
    path: "/v1/repeat/{info.fString=first/*}/{info.fChild.fString=second/*}/bool/{info.fBool}:pathresource",
  },
  childFirst: {
    verb: "GET",
    path: "/v1/repeat/{info.fChild.fString=first/*}/{info.fString=second/*}/bool/{info.fBool}:childfirst",
  },
};

/** What a path has to say even where the message leaves it out. */
const pathDefaults = { fInt32: 0, fDouble: 0, fBool: false, fKingdom: "KINGDOM_UNSPECIFIED" };

const numbers = {
  ...{
    fInt32: -1,
    fSint32: -2,
    fSfixed32: -3,
    fUint32: 5,
    fFixed32: 7,
    fInt64: "-11",
    fSint64: "-13",
    fSfixed64: "-17",
  },
  ...{ fUint64: "19", fFixed64: "23", fDouble: -29e4, fFloat: -31, fBool: true, fKingdom: "KINGDOM_ANIMALS" },
};
const optionals = { pString: "Goodbye", pInt32: -37, pDouble: -41.43, pBool: true, pKingdom: "KINGDOM_PLANTS" };
const zeros = Object.fromEntries(
  Object.keys(numbers).map((key) => [key, key === "fBool" ? false : key === "fKingdom" ? "KINGDOM_UNSPECIFIED" : 0]),
);
const zeroOptionals = { pInt32: 0, pDouble: 0, pBool: false };
const most = {
  ...{ fInt32: 2147483647, fSint32: 2147483647, fSfixed32: 2147483647, fUint32: 4294967295, fFixed32: 4294967295 },
  ...{ fInt64: "9223372036854775807", fSint64: "9223372036854775807", fSfixed64: "9223372036854775807" },
  ...{ fUint64: "18446744073709551615", fFixed64: "18446744073709551615" },
  ...{ fDouble: Number.MAX_VALUE, fFloat: 3.4028234663852886e38, fBool: false },
};
const child = { fString: "second/bool/salutation" };
const topLevel = { fInt32: -10, fInt64: "-110", fDouble: -54e4, pInt32: -47, pInt64: "-477", pDouble: -61.73 };
const resources = { fString: "first/hello", pBool: true, fChild: { fString: "second/greetings" } };

/** The groups of the public suite: each request goes over each binding. */
const groups: [bindings: string[], requests: [name: string, message: JsonObject][]][] = [
  [
    ["body", "bodyPut", "bodyPatch", "query", "simplePath", "bodyInfo"],
    [
      ["every scalar type", { info: { fString: "Hello", ...numbers, ...optionals, fChild: child }, ...topLevel }],
      ["no optional field", { info: { fString: "Hello", ...numbers, fChild: child } }],
      ["zeros, of optional fields too", { info: { fString: "Hello", ...zeros, ...zeroOptionals, pString: "Goodbye" } }],
      ["extreme values", { info: { fString: 'not ASCII ☺ → "\\/\b\f\r\t\u1234', ...most, pDouble: Number.MAX_VALUE } }],
      ["a space", { info: { fString: "Hello there" } }],
      ["quotes", { info: { fString: 'Hello "You"' } }],
      ["a percent sign", { info: { fString: "Hello 100%" } }],
    ],
  ],
  [
    ["body", "bodyPut", "bodyPatch", "query"],
    [
      [
        "slashes, and values that look like templates",
        { info: { fString: "first/hello/second/greetings", pBool: true, fChild: { fString: "second/zzz/bool/true" } } },
      ],
    ],
  ],
  [
    ["pathResource"],
    [
      ["resources in the path", { info: resources }],
      ["resources in the path of the first binding", { info: { ...resources, fBool: true } }],
    ],
  ],
  [
    ["childFirst"],
    [
      [
        "resources in the path of the additional binding",
        { info: { fString: "second/greetings", pBool: true, fChild: { fString: "first/hello" } } },
      ],
    ],
  ],
  [
    ["body", "bodyPut", "bodyPatch", "query"],
    [["zeros in all fields", { info: { fString: "", ...zeros, ...zeroOptionals, pString: "" } }]],
  ],
];

describe("the calls of the compliance suite", () => {
  const cases = groups.flatMap(([names, requests]) =>
    requests.flatMap(([request, message]) => names.map((binding) => ({ binding, request, message }))),
  );
  it("are 53", () => expect(cases).toHaveLength(53));

  it.each(cases)("$request by $binding", async ({ binding, message }) => {
    const sent = { ...message, info: { ...pathDefaults, ...(message["info"] as JsonObject) } };
    const { path, options } = toHttpRequest(bindings[binding]!, sent);
    const answer = await ask(gateway, path, options);
    expect(answer.json).toEqual(canonical("acme.repeat.v1.Repeat", sent));
    expect(answer.status).toBe(200);
  });
});

const get = (path: string, options: Ask = {}) => ask(gateway, path, { method: "GET", ...options });

describe("values of queries and paths", () => {
  it("takes lists, enums, wrappers, masks, times and bytes", async () => {
    const query = [
      ...["tags=a", "tags=b%26c", "kinds=KIND_NOVEL", "kinds=2", "numbers=9223372036854775807", "numbers=-1"],
      ...["update_mask=book.title,maybe_number", "since=2026-01-31T12:00:00Z", "length=1.5s"],
      ...["maybeNumber=9007199254740993", "maybe_flag=false", "maybeText=", "raw=_-8%3D", "book.sequel.pages=7"],
      ...["weights=1.5", "weights=NaN", "right=3"],
    ].join("&");
    const { json } = await get(`/v1/shelves/a%2Fb?${query}`);
    expect(json).toMatchObject({
      name: "a/b",
      tags: ["a", "b&c"],
      kinds: ["KIND_NOVEL", "KIND_ATLAS"],
      numbers: ["9223372036854775807", "-1"],
      updateMask: "book.title,maybeNumber",
      since: "2026-01-31T12:00:00Z",
      length: "1.500s",
      maybeNumber: "9007199254740993",
      maybeFlag: false,
      maybeText: "",
      raw: "/+8=",
      book: { sequel: { pages: 7 } },
      weights: [1.5, "NaN"],
      right: 3,
    });
  });

  it("finds fields by their names in JSON and in the proto", async () => {
    const { json } = await get("/v1/repeat:query?another-name=a&f_int32=4&info.fString=b");
    expect(json).toMatchObject({ "another-name": "a", fInt32: 4, info: { fString: "b" } });
    expect((await get("/v1/repeat:query?renamed=c")).json).toMatchObject({ "another-name": "c" });
  });

  it.each([
    ["/v1/files/a/b%2Fc/d", "a/b%2Fc/d"],
    ["/v1/files/a%20b", "a b"],
    ["/v1/files", ""],
    ["/v1/projects/projects/p1/shelves/s/t:search", "projects/p1/shelves/s/t"],
    ["/v1/shelves/%E2%98%BA", "☺"],
    ["/v1/shelves/a:b", "a:b"],
  ])("reads %s as the name %j", async (path, name) => {
    expect((await get(path)).json).toMatchObject({ name });
  });

  it("refuses each wrong parameter by its name, and starts nothing", async () => {
    const before = handled;
    const query = [
      ...["tagz=a", "kinds=KIND_NOVELL", "numbers=many", "maybeFlag=yes", "name=other", "since=now", "labels.a=b"],
      ...["anything=1", "books=x", "book=x", "length=1s", "length=2s", "namespace=other", "raw=%25%25", "left.x=1"],
    ].join("&");
    const answer = await get(`/v1/shelves/a?${query}`);
    expect(answer).toMatchObject({ status: 400, json: { reason: "INPUT_INVALID" } });
    const errors = answer.json.errors.map(
      ({ field, message }: { field: string; message: string }) => `${field}: ${message}`,
    );
    expect(errors).toEqual([
      'tagz: Shelf has no field "tagz"; did you mean "tags"?',
      'maybeFlag: expected true or false, found "yes"',
      "name: is in the path already",
      'labels.a: there is nothing below "labels"',
      "anything: values of google.protobuf.Value can't be query parameters",
      "books: values of acme.shelf.v1.Book can't be query parameters",
      "book: is a message: give its fields, such as book.title",
      "length: is given more than once",
      "namespace: the namespace goes into the header Taskmesh-Namespace",
      'left.x: there is nothing below "left"',
    ]);
    const values = await get("/v1/shelves/a?kinds=KIND_NOVELL&numbers=many&since=now&raw=%25%25&left=1&right=2");
    expect(values.json.errors.map(({ field }: { field: string }) => field).sort()).toEqual([
      "kinds[0]",
      "numbers[0]",
      "raw",
      "right",
      "since",
    ]);
    expect((await get("/v1/shelves/a?name=%ff")).status).toBe(400);
    expect(handled).toBe(before);
  });
});

describe("bodies and answers", () => {
  it("takes one field as the body, the rest from path and query, and answers with one field", async () => {
    const body = { title: "Maps", pages: 3 };
    const answer = await ask(gateway, "/v1/shelves/s1?tags=x", { method: "PATCH", body });
    expect(answer).toMatchObject({ status: 200, json: { title: "Maps", pages: 3 } });
    expect(answer.json.tags).toBeUndefined();
    const run = await get(`/api/v1/runs/${answer.headers["taskmesh-run-id"]}`);
    expect(run.json.input).toMatchObject({ name: "s1", tags: ["x"], book: { title: "Maps" } });
  });

  it("answers with a field that is a text, a list, or not there", async () => {
    const renamed = await ask(gateway, "/v1/shelves/s1", { method: "PUT", body: { name: "s1", tags: ["y"] } });
    expect(renamed.text).toBe('"s1"');
    expect(renamed.headers["content-type"]).toContain("application/json");
    expect((await ask(gateway, "/v1/shelves/s1?tags=a&tags=b", { method: "DELETE" })).json).toEqual(["a", "b"]);
    expect((await get("/v1/shelves/new")).text).toBe("null");
  });

  it("prefers a literal to a variable, and takes other methods", async () => {
    expect((await get("/v1/shelves/new?name=x")).text).toBe("null");
    expect((await get("/v1/shelves/newer")).json).toMatchObject({ name: "newer" });
    expect((await ask(gateway, "/v1/shelves/s2", { method: "REPORT" })).json).toMatchObject({ name: "s2" });
    for (const method of ["GET", "OPTIONS", "DELETE"]) {
      expect((await ask(gateway, "/v1/any/s3", { method })).json).toMatchObject({ name: "s3" });
    }
  });

  it("refuses a body that says otherwise than the path, a body without a place, and a query beside a whole body", async () => {
    const put = await ask(gateway, "/v1/shelves/s1", { method: "PUT", body: { name: "s2" } });
    expect(put.json.errors).toEqual([{ field: "name", message: "the body says otherwise than the path" }]);
    const remove = await ask(gateway, "/v1/shelves/s1", { method: "DELETE", body: { tags: [] } });
    expect(remove).toMatchObject({ status: 400, json: { reason: "INPUT_INVALID" } });
    const query = await ask(gateway, "/v1/shelves/s1?tags=a", { method: "PUT", body: {} });
    expect(query.json.errors).toEqual([
      { field: "tags", message: expect.stringContaining("in the body and the path") },
    ]);
    const lossy = await ask(gateway, "/v1/shelves/s1", { method: "PUT", body: '{"numbers":[9007199254740993]}' });
    expect(lossy.json.errors[0].field).toBe("numbers[0]");
    const list = await ask(gateway, "/v1/repeat:body", { method: "POST", body: "[]" });
    expect(list).toMatchObject({ status: 400, json: { reason: "INPUT_INVALID" } });
  });
});

describe("declared routes", () => {
  it("are durable runs: not waited for where asked, and one for one key", async () => {
    const later = await get("/v1/shelves/later", { headers: { prefer: "respond-async" } });
    expect(later).toMatchObject({ status: 202, json: { runId: expect.any(String) } });
    const before = handled;
    const headers = { "idempotency-key": "declared-1" };
    const [first, second] = [await get("/v1/shelves/once", { headers }), await get("/v1/shelves/once", { headers })];
    expect(second.headers["taskmesh-run-id"]).toBe(first.headers["taskmesh-run-id"]);
    expect(handled).toBeLessThanOrEqual(before + 2);
    expect((await get("/v1/shelves/other", { headers })).status).toBe(409);
  });

  it("leave the plain call as it is, and the mesh its own paths", async () => {
    const plain = await ask(gateway, "/v1/acme.shelf.v1.ShelfActions/Search", { body: { name: "plain" } });
    expect(plain.json).toMatchObject({ name: "plain" });
    expect(await get("/api/v1/nothing")).toMatchObject({ status: 404, json: { reason: "ROUTE_NOT_FOUND" } });
    expect(await get("/v1/nothing")).toMatchObject({ status: 404, json: { reason: "ROUTE_NOT_FOUND" } });
    const wrong = await ask(gateway, "/v1/shelves/s1", { method: "LOCK" });
    expect(wrong).toMatchObject({ status: 405, json: { reason: "HTTP_METHOD_NOT_ALLOWED" } });
    expect(wrong.headers.allow?.split(", ").sort()).toEqual(["DELETE", "GET", "PATCH", "POST", "PUT", "REPORT"]);
    const other = await get("/v1/shelves/s1", { headers: { "taskmesh-namespace": "nowhere" } });
    expect(other).toMatchObject({ status: 404, json: { reason: "NAMESPACE_NOT_FOUND" } });
  });

  it("come with their contract while the mesh runs; what can't be served is said to the worker and in the list", async () => {
    const late = (rules: string) => `
      syntax = "proto3";
      package acme.late.v1;
      import "google/api/annotations.proto";
      service LateActions { ${rules} }
      message Late { string name = 1; repeated string tags = 2; }`;
    const rule = (name: string, http: string) =>
      `rpc ${name}(Late) returns (Late) { option (google.api.http) = { ${http} }; }`;
    const proto = late(
      [
        rule("Good", 'get: "/v1/late/{name}"'),
        rule("Own", 'get: "/api/v1/late"'),
        rule("Taken", 'get: "/v1/shelves/{tags}" additional_bindings { get: "/v1/shelves/{name=*}" }'),
        rule("Misspelt", 'get: "/v1/late2/{nam}"'),
        rule("Plain", 'post: "/v1/acme.late.v1.LateActions/Good" body: "*"'),
      ].join("\n"),
    );
    expect((await get("/v1/late/x")).status).toBe(405);
    const lateDescriptors = compileProtos({ "acme/late.proto": proto });
    const names = ["Good", "Own", "Taken", "Misspelt", "Plain"].map((name) => `acme.late.v1.LateActions/${name}`);
    const actions = names.map((name) => echoAction(name));
    await mesh.serve(actions, { descriptors: lateDescriptors, carrier: mesh.coordinator.carrier });
    await vi.waitFor(async () => expect((await get("/v1/late/x")).json).toMatchObject({ name: "x" }), {
      timeout: 10_000,
    });
    const { json } = await get("/api/v1/routes");
    const problems = json.routes
      .filter(({ method }: { method: string }) => method.startsWith("acme.late."))
      .map(({ path, problem }: { path: string; problem: string }) => `${path} ${problem}`);
    expect(problems).toEqual([
      "/v1/late/{name} ",
      '/v1/late2/{nam} acme.late.v1.Late has no field "nam"; did you mean "name"?',
      "/api/v1/late the path belongs to the mesh itself",
      "/v1/acme.late.v1.LateActions/Good the path is the plain call of acme.late.v1.LateActions/Good",
      "/v1/shelves/{name=*} the path belongs to acme.shelf.v1.ShelfActions/Search, which was registered before",
      "/v1/shelves/{tags} tags: a repeated field can't be in a path",
    ]);
  });
});

describe("a validating proxy", () => {
  it("finds nothing wrong with the answers above", async () => {
    expect(await faultsSeenByPrism(gateway)).toEqual([]);
  });
});
