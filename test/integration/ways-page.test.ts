/** docs/ways.md against reality: every name on it exists, and every rpc, route, command and setting about runs is on it. */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";
import { describe, expect, it } from "vitest";
import { AttemptContext } from "../../action-sdk/src/context.js";
import { createProgram } from "../../cli/src/program.js";
import { documentOf } from "../../gateway/src/openapi/document-fixture.js";
import { meshRegistry, meshType } from "../../gateway/src/render.js";
import { settingsKnown } from "../fixtures/chain-settings.js";
import { leadsSomewhere, rowsWith } from "../fixtures/ways-page.js";

const declared = rowsWith("settings");
const done = rowsWith("gRPC");
const handled = rowsWith("in the handler");
const left = rowsWith("why");
const all = [...declared, ...done, ...handled];
const namesIn = (column: string) => done.flatMap((row) => row[column]!.names);

/** Services of the mesh by their short names. */
const services = new Map(
  [...meshRegistry].flatMap((one) =>
    one.kind === "service" && one.typeName.startsWith("taskmesh.v1.") ? [[one.name, one]] : [],
  ),
);
const bulkKinds = [...meshRegistry].find((one) => one.kind === "enum" && one.name === "BulkKind");

describe("each row", () => {
  it("says something else, and has a guide and tests that exist", () => {
    const capabilities = all.map(({ capability }) => capability!.text);
    expect(capabilities.length).toBeGreaterThan(80);
    expect(new Set(capabilities).size).toBe(capabilities.length);
    for (const { capability, guide, tests } of all) {
      const links = [...guide!.links, ...tests!.links];
      expect(guide!.links.length * tests!.links.length, capability!.text).toBeGreaterThan(0);
      expect(
        links.filter((link) => !leadsSomewhere(link)),
        capability!.text,
      ).toEqual([]);
    }
    expect(left.flatMap(({ why }) => why!.links).filter((link) => !leadsSomewhere(link))).toEqual([]);
  });

  it("of what is done names a call, a route and a command", () => {
    for (const row of done)
      for (const column of ["gRPC", "REST", "command line"])
        expect(row[column]!.names.length, `${row["capability"]!.text}: ${column}`).toBeGreaterThan(0);
  });
});

describe("gRPC", () => {
  /** Whether a name is an rpc, a field of a message, or a kind of bulk operation. */
  const isThere = (name: string): boolean => {
    const [owner = "", member] = name.split(".");
    if (member === undefined)
      return bulkKinds?.kind === "enum" && bulkKinds.values.some((value) => value.name === name);
    if (services.has(owner)) return services.get(owner)!.methods.some((rpc) => rpc.name === member);
    return meshType(owner).fields.some((field) => field.name === member);
  };

  it("has what the page names", () => {
    expect(namesIn("gRPC").filter((name) => !isThere(name))).toEqual([]);
  });

  it("has no rpc about runs, chains or people, and no kind of bulk operation, that the page leaves out", () => {
    const leftOut = left.flatMap(({ service }) => service!.names);
    const rpcs = [...services.values()]
      .filter(({ name }) => !leftOut.includes(name))
      .flatMap(({ name, methods }) => methods.map((rpc) => `${name}.${rpc.name}`));
    const kinds = bulkKinds?.kind === "enum" ? bulkKinds.values.slice(1).map(({ name }) => name) : [];
    expect(leftOut.filter((name) => !services.has(name))).toEqual([]);
    expect([...rpcs, ...kinds].filter((name) => !namesIn("gRPC").includes(name))).toEqual([]);
    const start = meshType("StartRunRequest").fields.map(({ name }) => `StartRunRequest.${name}`);
    const plain = ["namespace", "method", "payload", "json"].map((name) => `StartRunRequest.${name}`);
    expect(start.filter((name) => !namesIn("gRPC").includes(name))).toEqual(plain);
  });
});

describe("REST", () => {
  // biome-ignore lint/suspicious/noExplicitAny: a document of every shape
  const document: any = documentOf([]);
  const resolve = (schema: { $ref?: string; properties?: object } = {}) =>
    schema.$ref === undefined ? schema : document.components.schemas[schema.$ref.split("/").pop()!];

  /** Fields that a route takes in its body and query. */
  const fieldsOf = (route: string): string[] => {
    const [verb = "", path = ""] = route.split(" ");
    const operation = document.paths[path]?.[verb.toLowerCase()];
    if (operation === undefined) throw new Error(`there is no ${route}`);
    const body = resolve(operation.requestBody?.content?.["application/json"]?.schema);
    const query = (operation.parameters ?? []).map((one: { name?: string; $ref?: string }) =>
      one.$ref === undefined ? one.name : document.components.parameters[one.$ref.split("/").pop()!].name,
    );
    return [...Object.keys(body.properties ?? {}), ...query];
  };

  it.each(done.map((row) => [row["capability"]!.text, row["REST"]!.names] as const))(
    "%s",
    (_, [route = "", ...fields]) => {
      const taken = fieldsOf(route);
      expect(fields.filter((field) => !taken.includes(field))).toEqual([]);
    },
  );

  /** Fields of requests that REST calls otherwise: a message in place, a name in the path, one value in the place of a list. */
  const otherwise: Readonly<Record<string, readonly string[]>> = {
    ...{ payload: ["input", "output", "value", "callback"], json: ["input", "output", "value", "callback"] },
    ...{ spec: ["steps"], name: ["service"], signal: ["name"], stepIds: ["stepId"] },
    ...{ statuses: ["status"], labels: ["label"], groups: ["group"], idempotencyKey: ["Idempotency-Key"] },
  };

  it("takes all that the rpcs take", () => {
    const takenBy = new Map<string, Set<string>>();
    for (const row of done) {
      const rpc = row["gRPC"]!.names.find((name) => /Service\./.test(name));
      if (rpc === undefined) continue;
      const [route = ""] = row["REST"]!.names;
      const inPath = [...route.matchAll(/\{(\w+)\}/g)].map(([, name]) => (name === "token" ? "callback" : name!));
      takenBy.set(rpc, new Set([...(takenBy.get(rpc) ?? []), ...fieldsOf(route), ...inPath, "namespace"]));
    }
    // A step is named in the path of a route of its own.
    for (const name of ["stepId", "input"]) takenBy.get("RunService.RetryStep")!.add(name);
    takenBy.get("RunService.CompleteCallback")!.add("token");
    const left = [...takenBy].flatMap(([rpc, taken]) =>
      meshType(`${rpc.split(".")[1]}Request`)
        .fields.map(({ jsonName }) => jsonName)
        .filter((name) => ![name, ...(otherwise[name] ?? [])].some((one) => taken.has(one)))
        .map((name) => `${rpc}: ${name}`),
    );
    expect(takenBy.size).toBeGreaterThan(30);
    expect(left).toEqual([]);
  });

  it("has no route about runs, chains or people that the page leaves out", () => {
    const routes = Object.entries<Record<string, { tags: string[] }>>(document.paths).flatMap(([path, item]) =>
      Object.entries(item).flatMap(([verb, { tags }]) =>
        tags?.some((tag) => ["Runs", "Chains", "Assignments"].includes(tag)) ? [`${verb.toUpperCase()} ${path}`] : [],
      ),
    );
    expect(routes.length).toBeGreaterThan(30);
    expect(routes.filter((route) => !namesIn("REST").includes(route))).toEqual([]);
  });
});

describe("the command line", () => {
  const commands = new Map<string, CommandUnknownOpts>();
  const collect = (command: CommandUnknownOpts, path: string): void => {
    if (command.commands.length === 0) commands.set(path, command);
    for (const child of command.commands) collect(child, `${path} ${child.name()}`.trim());
  };
  collect(createProgram(), "");

  /** What of a name, "bulk start pause --step", is not there. */
  const missing = (name: string): string[] => {
    const words = name.split(" ");
    const given = words.filter((word) => word.startsWith("--"));
    const [group, verb, ...values] = words.filter((word) => !word.startsWith("--"));
    const command = commands.get(`${group} ${verb}`);
    if (command === undefined) return [name];
    const known = command.options.map((option) => option.long);
    const choices = command.registeredArguments
      .map(({ description }) => description)
      .join(", ")
      .split(", ");
    return [
      ...given.filter((option) => !known.includes(option)),
      ...values.filter((value) => !choices.includes(value)),
    ];
  };

  it.each(done.map((row) => [row["capability"]!.text, row["command line"]!.names] as const))("%s", (_, names) => {
    expect(names.flatMap(missing)).toEqual([]);
  });

  it("has no command about runs, chains or people that the page leaves out", () => {
    const about = [...commands.keys()].filter((path) => /^(runs|chains|bulk|assignments) /.test(path));
    const named = namesIn("command line").map((name) => name.split(" ").slice(0, 2).join(" "));
    expect(about.length).toBeGreaterThan(30);
    expect(about.filter((path) => !named.includes(path))).toEqual([]);
  });
});

describe("settings of a chain", () => {
  const named = declared.flatMap(({ settings }) => settings!.names);
  const known = settingsKnown();

  it("exist where the page names one", () => {
    expect(named.filter((name) => !known.includes(name))).toEqual([]);
  });

  it("are all on the page", () => {
    expect(known.length).toBeGreaterThan(60);
    expect(known.filter((name) => !named.includes(name))).toEqual([]);
  });
});

it("handlers have what the page names", () => {
  const names = handled.flatMap((row) => row["in the handler"]!.names);
  expect(names.filter((name) => !(name in AttemptContext.prototype))).toEqual([]);
});
