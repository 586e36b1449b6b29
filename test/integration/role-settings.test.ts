/** Every process says what it can be told, and refuses what it was told wrong all at once, before anything starts. */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { settingsTables } from "@taskmesh/runtime";
import { describe, it } from "vitest";

const root = join(import.meta.dirname, "..", "..");
const nodeArgs = ["--import", "tsx", "--conditions=@taskmesh/source"];

/** Runs a program to its end with these variables alone. */
function run(file: string, args: string[], env: Record<string, string> = {}) {
  return new Promise<{ code: number; out: string; err: string }>((resolve) => {
    const options = { cwd: root, env: { PATH: process.env["PATH"], ...env }, timeout: 60_000 };
    execFile(process.execPath, [...nodeArgs, join(root, file), ...args], options, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    );
  });
}

type Table = keyof typeof settingsTables;

const worker: Table[] = ["Workers and the command line", "Workers alone", "Built-in actions", "Tracing"];
const roles: [name: string, file: string, args: string[], tables: Table[]][] = [
  ["the coordinator", "coordinator/src/main.ts", ["--help"], ["Coordinator", "Tracing"]],
  ["the gateway", "gateway/src/main.ts", ["--help"], ["Gateway", "Tracing"]],
  ["the worker of the built-in actions", "actions/src/main.ts", ["--help"], worker],
  ["the command line", "cli/src/main.ts", ["settings"], Object.keys(settingsTables) as Table[]],
];

describe.concurrent("the help of a role", () => {
  it.for(roles)("lists every setting of %s with form, unit and default", async ([, file, args, tables], { expect }) => {
    const { code, out } = await run(file, args);
    expect(code).toBe(0);
    for (const table of tables) {
      for (const { variable, form, fallback, required, doc } of Object.values(settingsTables[table])) {
        const held = required ? "required" : fallback === undefined ? "not set" : `default ${fallback}`;
        expect(out).toMatch(new RegExp(`^  ${variable}( |$)`, "m"));
        expect(out).toContain(`      ${form}; ${held}\n      ${doc}`);
      }
    }
  });
});

const wrong = { TASKMESH_TLS_CERT: "/missing.pem", TASKMESH_NAMESPACE: "A b", TASKMESH_NAMESPACES: "A b" };
const refusals: [name: string, file: string, args: string[], env: Record<string, string>, faults: string[]][] = [
  [
    "the coordinator",
    "coordinator/src/main.ts",
    [],
    { ...wrong, TASKMESH_GRPC_ADDRESS: "nowhere", NATS_REPLICAS: "9" },
    ["DATABASE_URL", "NATS_URL", "NATS_REPLICAS", "TASKMESH_GRPC_ADDRESS", "TASKMESH_NAMESPACES", "TASKMESH_TLS_CERT"],
  ],
  [
    "the gateway",
    "gateway/src/main.ts",
    [],
    { ...wrong, TASKMESH_ADDRESS: ":", TASKMESH_HTTP_ADDRESS: "nowhere" },
    ["TASKMESH_ADDRESS", "TASKMESH_HTTP_ADDRESS", "TASKMESH_NAMESPACES", "TASKMESH_TLS_CERT"],
  ],
  [
    "the worker of the built-in actions",
    "actions/src/main.ts",
    [],
    { ...wrong, TASKMESH_SLOTS: "0", TASKMESH_HTTP_ALLOW: "10.0.0.0/99" },
    ["TASKMESH_SLOTS", "TASKMESH_HTTP_ALLOW", "TASKMESH_NAMESPACE", "TASKMESH_TLS_CERT"],
  ],
  [
    "the whole mesh in one process",
    "cli/src/main.ts",
    ["mesh"],
    { ...wrong, TASKMESH_HTTP_ADDRESS: "nowhere", TASKMESH_HTTP_ALLOW: "10.0.0.0/99" },
    [
      "DATABASE_URL",
      "NATS_URL",
      "TASKMESH_NAMESPACES",
      "TASKMESH_HTTP_ADDRESS",
      "TASKMESH_HTTP_ALLOW",
      "TASKMESH_TLS_CERT",
    ],
  ],
  [
    "the embedded mesh",
    "cli/src/main.ts",
    ["dev"],
    { ...wrong, TASKMESH_GRPC_ADDRESS: "nowhere", TASKMESH_HTTP_ADDRESS: "nowhere" },
    ["TASKMESH_GRPC_ADDRESS", "TASKMESH_HTTP_ADDRESS", "TASKMESH_NAMESPACES", "TASKMESH_TLS_CERT"],
  ],
];

describe.concurrent("a faulty configuration", () => {
  it.for(refusals)("of %s is reported as a whole", async ([, file, args, env, faults], { expect }) => {
    const { code, err } = await run(file, args, env);
    expect(code).toBe(2);
    for (const fault of faults) expect(err).toMatch(new RegExp(`^ *${fault}: `, "m"));
    expect(err).not.toContain("    at ");
  });
});
