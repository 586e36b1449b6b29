import { Command } from "@commander-js/extra-typings";
import { parseAddress } from "../options.js";
import { openOutput } from "../session.js";

/** `taskmesh dev`: the whole mesh in this process. */
export const dev = () =>
  new Command("dev")
    .description("run a mesh on this machine: no servers to install, runs survive restarts")
    .option("--data <folder>", "where runs and contracts are kept", ".taskmesh")
    .option(
      "--grpc-address <host:port>",
      "for workers and stubs; TASKMESH_GRPC_ADDRESS; default 127.0.0.1:7400",
      parseAddress,
    )
    .option("--http-address <host:port>", "for REST; TASKMESH_HTTP_ADDRESS; default 127.0.0.1:7480", parseAddress)
    .option(
      "--http-allow <host...>",
      "what the HTTP action may call beside public addresses; TASKMESH_HTTP_ALLOW; default: this machine",
      [],
    )
    .action(async (options, command) => {
      const { runEmbeddedMesh } = await import("../dev/run.js");
      await runEmbeddedMesh(options, openOutput(command));
    });
