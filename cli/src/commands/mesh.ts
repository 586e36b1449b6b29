import { Command } from "@commander-js/extra-typings";
import { openOutput } from "../session.js";

/** `taskmesh mesh`: coordinator, gateway and built-in actions against Postgres and NATS. */
export const mesh = () =>
  new Command("mesh")
    .description("run a coordinator, a gateway and the built-in actions against DATABASE_URL and NATS_URL")
    .action(async (_options, command) => {
      const { runServerMesh } = await import("../server-mesh.js");
      await runServerMesh(openOutput(command));
    });
