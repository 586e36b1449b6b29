/** A worker process that serves every built-in action. Configured by the environment alone. */
import { startWorker } from "@taskmesh/action-sdk";
import { ConfigError, createLogger } from "@taskmesh/runtime";
import { builtinActions, builtinConfig, builtinDescriptors } from "./index.js";

try {
  const actions = builtinActions(builtinConfig(process.env));
  const worker = await startWorker({ descriptors: builtinDescriptors, actions });
  await worker.done;
} catch (error) {
  if (error instanceof ConfigError) process.stderr.write(`${error.message}\n`);
  else createLogger("actions").fatal({ err: error }, "the built-in actions cannot be served");
  process.exitCode = 1;
}
