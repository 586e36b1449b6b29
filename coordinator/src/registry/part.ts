import { createService, type Service, type ServiceParts } from "@taskmesh/runtime";

/** A service that also answers questions or takes orders: the methods of `extra` beside start and stop. */
export function createPart<T extends object>(name: string, parts: ServiceParts & { extra: T }): Service & T {
  const service = createService(name, parts);
  return {
    ...parts.extra,
    name,
    start: () => service.start(),
    stop: () => service.stop(),
    get running() {
      return service.running;
    },
  };
}
