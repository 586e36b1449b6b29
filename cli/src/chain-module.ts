/** A chain that a module exports: `chain.ts`, or `chain.ts#name` where it exports several. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Chain, isChain } from "@taskmesh/action-sdk/chains";
import { type ChainFile, readChainFile } from "./chain-file.js";
import { CliError, exitCode, usageError } from "./exit.js";
import type { JsonObject } from "./json.js";

const modulePath = /^(.*\.[cm]?[jt]s)(?:#(\w+))?$/;

/** Reads a chain from whatever the path names: a module, a document, or stdin for "-". */
export const readChain = async (path: string): Promise<ChainFile> =>
  modulePath.test(path) ? readChainModule(path) : readChainFile(path);

/**
 * Runs the module and takes the chain from it. TypeScript is compiled on the way, without a check of its types.
 * @throws CliError (usage) if there is not exactly one chain of that name; (bad) if the module can't be run.
 */
async function readChainModule(path: string): Promise<ChainFile> {
  const [, file = path, wanted] = modulePath.exec(path) ?? [];
  const exported = await run(file);
  const chains = Object.entries(exported).filter((entry): entry is [string, Chain<unknown, unknown>] =>
    isChain(entry[1]),
  );
  const names = chains.map(([name]) => name);
  const found = wanted === undefined ? chains : chains.filter(([name]) => name === wanted);
  const [only] = found;
  if (only === undefined) {
    const what = wanted === undefined ? "no chain" : `no chain named ${wanted}`;
    throw usageError(`${file} exports ${what}${names.length > 0 ? `; it has ${names.join(", ")}` : ""}`);
  }
  if (found.length > 1)
    throw usageError(`${file} exports several chains: choose one, ${file}#${names.join(` or ${file}#`)}`);
  return { name: path, spec: only[1].json as JsonObject, locate: () => undefined };
}

async function run(file: string): Promise<object> {
  const url = pathToFileURL(resolve(file)).href;
  try {
    if (!/\.[cm]?ts$/.test(file)) return (await import(url)) as object;
    const { tsImport } = await import("tsx/esm/api");
    return (await tsImport(url, import.meta.url)) as object;
  } catch (error) {
    throw new CliError(
      exitCode.bad,
      `${file} can't be run: ${error instanceof Error ? error.message : String(error)}`,
      {
        cause: error,
      },
    );
  }
}
