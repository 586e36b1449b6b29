/** Worker threads of this package, from sources or from a build alike. */
import { Worker } from "node:worker_threads";

/** Starts the module `name` (no extension) beside `from`. A thread doesn't inherit the loader that runs sources, so it loads one itself. */
export function startThread(name: string, from: string, workerData: unknown): Worker {
  if (!from.endsWith(".ts")) return new Worker(new URL(`./${name}.js`, from), { workerData });
  const entry = JSON.stringify(new URL(`./${name}.ts`, from).href);
  const code = `import("tsx/esm/api").then((tsx) => { tsx.register(); return import(${entry}); });`;
  return new Worker(code, { eval: true, workerData, execArgv: ["--conditions=@taskmesh/source"] });
}
