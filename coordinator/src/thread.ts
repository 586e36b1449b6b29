/** Worker threads of this package, from sources or from a build alike. */
import { type ResourceLimits, Worker } from "node:worker_threads";

/**
 * Starts the module `name` (no extension) beside `from`. A thread doesn't inherit the loader that runs sources, so it loads one itself.
 * `limits`: of its memory; beyond them the thread ends with an error and the process goes on. Default: as much as the process.
 */
export function startThread(name: string, from: string, workerData: unknown, limits?: ResourceLimits): Worker {
  const resourceLimits = limits === undefined ? {} : { resourceLimits: limits };
  if (!from.endsWith(".ts")) return new Worker(new URL(`./${name}.js`, from), { workerData, ...resourceLimits });
  const entry = JSON.stringify(new URL(`./${name}.ts`, from).href);
  const code = `import("tsx/esm/api").then((tsx) => { tsx.register(); return import(${entry}); });`;
  return new Worker(code, { eval: true, workerData, ...resourceLimits, execArgv: ["--conditions=@taskmesh/source"] });
}
