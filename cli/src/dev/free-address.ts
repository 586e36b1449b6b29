/** Whether an address can be listened on, asked before anything that takes seconds is started. */
import { createServer } from "node:net";
import type { Address } from "@taskmesh/runtime";

/**
 * Rejects with the system's error (EADDRINUSE, EACCES) if the address can't be had. Another process may still take it a moment later;
 * then the part that needs it fails when it starts.
 */
export async function checkFree({ host, port }: Address): Promise<void> {
  const probe = createServer();
  await new Promise<void>((resolve, reject) => {
    probe.once("error", reject);
    probe.listen({ host: host.replace(/^\[|\]$/g, ""), port, exclusive: true }, resolve);
  });
  await new Promise((resolve) => probe.close(resolve));
}
