import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readChain } from "./chain-module.js";

const guides = join(import.meta.dirname, "..", "..", "test", "guides");
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "taskmesh-chain-module-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function moduleOf(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const one = (name: string) =>
  `export const ${name} = { name: "a.v1.C/${name}", spec: { steps: [] }, json: { steps: [] } };\n`;

describe("a chain from a module", () => {
  it("is what the same chain is in YAML", async () => {
    const module = await readChain(join(guides, "page-report.ts"));
    const document = await readChain(join(guides, "page-report.yaml"));
    expect(module.spec).toEqual(document.spec);
    expect(module.locate("steps[0]")).toBeUndefined();
  });

  it("is the one export that is named, where there are several", async () => {
    const path = moduleOf("two.mjs", one("first") + one("second"));
    expect(await readChain(`${path}#second`)).toMatchObject({ spec: { steps: [] } });
    await expect(readChain(path)).rejects.toThrow(`choose one, ${path}#first or ${path}#second`);
    await expect(readChain(`${path}#third`)).rejects.toThrow("no chain named third; it has first, second");
  });

  it("is refused where there is none, and where the module can't be run", async () => {
    await expect(readChain(moduleOf("none.mjs", "export const x = 1;\n"))).rejects.toMatchObject({ code: 2 });
    const broken = moduleOf("broken.mts", "throw new Error('no luck');\n");
    await expect(readChain(broken)).rejects.toMatchObject({ code: 1, message: `${broken} can't be run: no luck` });
  });
});
