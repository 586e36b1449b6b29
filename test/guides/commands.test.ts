/** Every `taskmesh` command that a guide or the README shows is one: its names, options and values are parsed as the program parses them. So are chains. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseChainDocument } from "@taskmesh/runtime";
import { expect, it, vi } from "vitest";
import { createProgram } from "../../cli/src/program.js";
import { shellWords } from "../fixtures/guide-console.js";

const root = join(import.meta.dirname, "..", "..");
const guides = readdirSync(join(root, "docs/guides")).map((name) => `docs/guides/${name}`);

/** The commands of a page's console blocks, without their prompt, environment and comment. */
function commandsOf(page: string): string[] {
  const text = readFileSync(join(root, page), "utf8");
  return [...text.matchAll(/^```console\n([\s\S]*?)^```$/gm)].flatMap(([, block]) =>
    [...block!.matchAll(/^\$ (?:[A-Z_]+=\S* )*(?:npx )?taskmesh (.*?)(?:\s{2,}# .*)?$/gm)].map(([, words]) => words!),
  );
}

/** Parses a command as the program does, and does nothing. */
async function parse(command: string): Promise<void> {
  const program = createProgram();
  const still = (one: { action(run: () => void): unknown; commands: readonly unknown[] }): void => {
    if (one.commands.length === 0) one.action(() => {});
    for (const child of one.commands) still(child as typeof one);
  };
  still(program as never);
  await program.parseAsync(shellWords(command), { from: "user" });
}

it.each([...guides, "README.md"].filter((page) => commandsOf(page).length > 0))("%s", async (page) => {
  const said: string[] = [];
  vi.spyOn(process.stderr, "write").mockImplementation((text) => said.push(String(text)) > 0);
  for (const command of commandsOf(page))
    await parse(command).catch((error: unknown) => said.push(`taskmesh ${command}: ${(error as Error).message}`));
  vi.restoreAllMocks();
  expect(said).toEqual([]);
});

it("every chain that a guide shows whole is read without a problem", () => {
  const found = [...guides, "README.md"].flatMap((page) => {
    const text = readFileSync(join(root, page), "utf8");
    const chains = [...text.matchAll(/^```yaml\n(contract:[\s\S]*?)^```$/gm)].map(([, chain]) => chain!);
    return chains.map((chain) => ({ page, problems: parseChainDocument(chain).problems }));
  });
  expect(found.length).toBeGreaterThanOrEqual(30);
  expect(found.filter(({ problems }) => problems.length > 0)).toEqual([]);
});

it("what is no command is found", async () => {
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
  await expect(parse("runs start a.v1.B/C --inptu '{}'")).rejects.toThrow("--inptu");
  await expect(parse("runs begin a.v1.B/C")).rejects.toThrow();
  vi.restoreAllMocks();
});
