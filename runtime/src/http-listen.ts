/** How the small servers beside a process's own begin to listen. */
import type { Server } from "node:http";
import type { Address } from "./setting-kinds.js";

/** Listens; rejects where that can't be. Later errors of the server are not the process's end. */
export function listen(server: Server, { host, port }: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => {
      server.off("error", reject);
      server.on("error", () => {});
      resolve();
    });
  });
}
