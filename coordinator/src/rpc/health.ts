/**
 * gRPC health (grpc.health.v1): overall under the empty name and per service. Open to callers without a credential.
 *
 * NOT_SERVING while the process drains or the database can't be reached: then no call can be accepted, and a load balancer should
 * choose another coordinator. Losing the message broker does not make it unhealthy: accepted runs wait, nothing is refused.
 */
import type { Server } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";

export interface Health {
  /** Adds the health service to a server. */
  addTo(server: Server): void;
  /** Services that report from now on as well. */
  addServices(services: readonly string[]): void;
  /** Whether the database answers; false at first. */
  setDatabase(reachable: boolean): void;
  /** From now on NOT_SERVING, whatever else is said. */
  drain(): void;
  /** Whether calls can be accepted now. */
  readonly serving: boolean;
}

/** `services`: full names of the services that report besides the overall status. */
export function createHealth(services: readonly string[]): Health {
  let database = false;
  let draining = false;
  const names = ["", ...services];
  const implementation = new HealthImplementation(Object.fromEntries(names.map((name) => [name, "NOT_SERVING"])));
  let shown = false;

  const show = (): void => {
    const serving = database && !draining;
    // Watchers are told of changes, not of repetitions.
    if (serving === shown) return;
    shown = serving;
    for (const name of names) implementation.setStatus(name, serving ? "SERVING" : "NOT_SERVING");
  };

  return {
    addTo: (server) => implementation.addToServer(server),
    addServices(services) {
      for (const name of services) {
        if (names.includes(name)) continue;
        names.push(name);
        implementation.setStatus(name, shown ? "SERVING" : "NOT_SERVING");
      }
    },
    setDatabase(reachable) {
      database = reachable;
      show();
    },
    drain() {
      draining = true;
      show();
    },
    get serving() {
      return shown;
    },
  };
}
