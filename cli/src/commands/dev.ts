import { Command } from "@commander-js/extra-typings";
import { parseAddress } from "../options.js";
import { openOutput } from "../session.js";

/** `taskmesh dev`: the whole mesh in this process. */
export const dev = () =>
  new Command("dev")
    .description("run a mesh on this machine: no servers to install, runs survive restarts")
    .option("--data <folder>", "where runs and contracts are kept", ".taskmesh")
    .option("--grpc-address <host:port>", "for workers and stubs", parseAddress, "127.0.0.1:7400")
    .option("--http-address <host:port>", "for REST, curl and this program", parseAddress, "127.0.0.1:7480")
    .option(
      "--http-allow <host...>",
      "private hosts that the built-in HTTP action may call, such as localhost or 10.0.0.0/8",
      [],
    )
    .action(async (options, command) => {
      const { runEmbeddedMesh } = await import("../dev/run.js");
      await runEmbeddedMesh(options, openOutput(command));
    });
