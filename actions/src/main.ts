/** A worker process that serves every built-in action. Configured by the environment alone. */
import { startWorker } from "@taskmesh/action-sdk";
import { ConfigError, createLogger, readTogether, requireSettings, roleHelp, settingsTables } from "@taskmesh/runtime";
import { builtinActions, builtinConfig, builtinDescriptors } from "./index.js";

async function main(env: NodeJS.ProcessEnv = process.env): Promise<number> {
  if (process.argv.includes("--help")) {
    const tables = ["Workers and the command line", "Workers alone", "Built-in actions", "Tracing"] as const;
    process.stdout.write(roleHelp("A Taskmesh worker that serves the built-in actions.", tables));
    return 0;
  }
  try {
    // The worker reads its own settings when it starts; here so that their faults are told with the others.
    const [config] = readTogether(
      () => builtinConfig(env),
      () => requireSettings(settingsTables["Workers alone"], env),
    );
    const worker = await startWorker({ descriptors: builtinDescriptors, actions: builtinActions(config) });
    await worker.done;
    return 0;
  } catch (error) {
    if (error instanceof ConfigError) {
      process.stderr.write(`${error.message}\n`);
      return 2;
    }
    createLogger("actions").fatal({ err: error }, "the built-in actions cannot be served");
    return 1;
  }
}

process.exitCode = await main();
