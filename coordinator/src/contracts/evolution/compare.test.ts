import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { compileProtos } from "../../../../test/fixtures/compile-protos.js";
import type { Contract } from "../contract.js";
import { contractOf, parseDescriptorSet, registryOf } from "../descriptors.js";
import { changes } from "./changes-fixture.js";
import { compareContracts } from "./compare.js";
import { describeViolation, type EvolutionRule, evolutionRules } from "./violation.js";

const packageOf = (index: number) => `c${index}.v1`;
const fileOf = (index: number) => `c${index}.proto`;
const root = join(import.meta.dirname, "..", "..", "..", "..");

/** All cases of one side, compiled at once; parsed as stored sets are, but for streams, which registration refuses. */
function compileSide(side: "before" | "after"): { bytes: Uint8Array; contracts: Contract[] } {
  const files = changes.map((change, index): [string, string] => [
    fileOf(index),
    change[side].replaceAll("PACKAGE", packageOf(index)),
  ]);
  const bytes = compileProtos(Object.fromEntries(files));
  const set = parseDescriptorSet(bytes);
  const contracts = changes.map((_, index) => {
    const file = set.files.get(fileOf(index))!;
    return contractOf(file.services[0]!.methods[0]!, registryOf(file));
  });
  return { bytes, contracts };
}

/** What the buf CLI says of the way from one set to the other, by package: the names of the rules. */
function judgedByBuf(older: Uint8Array, newer: Uint8Array): Map<string, string[]> {
  const folder = mkdtempSync(join(tmpdir(), "taskmesh-breaking-"));
  const [from, to] = [join(folder, "from.binpb"), join(folder, "to.binpb")];
  writeFileSync(from, older);
  writeFileSync(to, newer);
  const config = JSON.stringify({ version: "v2", breaking: { use: ["WIRE_JSON"] } });
  const flags = ["breaking", to, "--against", from, "--config", config, "--error-format", "json", "--exclude-imports"];
  try {
    execFileSync(join(root, "node_modules", ".bin", "buf"), flags, { stdio: ["ignore", "pipe", "pipe"] });
    throw new Error("buf finds nothing to complain about");
  } catch (error) {
    const { stdout, status } = error as { stdout: Buffer; status: number };
    if (status !== 100) throw error;
    const found = new Map<string, string[]>();
    for (const line of stdout.toString("utf8").trim().split("\n")) {
      const { path, type } = JSON.parse(line) as { path: string; type: string };
      found.set(path, [...(found.get(path) ?? []), type]);
    }
    return found;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

let before: Contract[];
let after: Contract[];
let oracle: { forth: Map<string, string[]>; back: Map<string, string[]> };

beforeAll(() => {
  const [old, now] = [compileSide("before"), compileSide("after")];
  before = old.contracts;
  after = now.contracts;
  oracle = { forth: judgedByBuf(old.bytes, now.bytes), back: judgedByBuf(now.bytes, old.bytes) };
}, 60_000);

const verdict = (older: Contract, newer: Contract, index: number): string[] =>
  compareContracts(older, newer).map(({ rule, subject }) => `${rule} ${subject.replace(`${packageOf(index)}.`, "")}`);

describe("a change of a contract", () => {
  it.each(changes.map((change, index) => ({ ...change, index })))("$name, and back", ({ forth, back, index }) => {
    const [old, now] = [before[index]!, after[index]!];
    expect(verdict(old, now, index).sort()).toEqual([...forth].sort());
    expect(verdict(now, old, index).sort()).toEqual([...back].sort());
  });

  it.each(["forth", "back"] as const)("is judged as the buf CLI judges it, on the way %s", (way) => {
    const rules = (list: readonly string[]) => [...new Set(list)].sort();
    const ours = changes.map((change) => ({
      name: change.name,
      rules: rules(change[way].map((entry) => entry.split(" ")[0]!).filter((rule) => !rule.startsWith("MESH_"))),
    }));
    const buf = changes.map(({ name }, index) => ({ name, rules: rules(oracle[way].get(fileOf(index)) ?? []) }));
    expect(ours).toEqual(buf);
  });

  it("is in the table for every rule, at least 120 of them", () => {
    expect(changes.length * 2).toBeGreaterThanOrEqual(120);
    const covered = new Set(changes.flatMap(({ forth, back }) => [...forth, ...back].map((one) => one.split(" ")[0])));
    // Needs chains to say so, and is tested with them.
    const elsewhere: EvolutionRule[] = ["MESH_FIELD_IN_USE"];
    expect([...covered, ...elsewhere].sort()).toEqual(Object.keys(evolutionRules).sort());
  });
});

describe("a violation", () => {
  it("names rule, file, line, field, sides and what to do", () => {
    const compile = (field: string) => {
      const text = `syntax = "proto3";\npackage a.v1;\nservice O { rpc Do(In) returns (Out); }\nmessage In {\n  ${field}\n}\nmessage Out {}\n`;
      const set = parseDescriptorSet(compileProtos({ "shop/order.proto": text }, { sourceInfo: true }));
      const file = set.files.get("shop/order.proto")!;
      return contractOf(file.services[0]!.methods[0]!, registryOf(file));
    };
    const [violation] = compareContracts(compile("string total = 1;"), compile("bool total = 1;"));
    expect(violation).toEqual({
      rule: "FIELD_WIRE_JSON_COMPATIBLE_TYPE",
      file: "shop/order.proto",
      line: 5,
      subject: "a.v1.In.total",
      type: "a.v1.In",
      number: 1,
      sides: ["input"],
      message: "was string, and is bool",
    });
    expect(describeViolation(violation!)).toBe(
      "shop/order.proto:5: a.v1.In.total was string, and is bool [FIELD_WIRE_JSON_COMPATIBLE_TYPE]; keep the type; add a field under a new number",
    );
  });
});
