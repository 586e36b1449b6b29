/**
 * What every call passes on its way in, whichever service it is for, those registered at run time included: credentials are
 * checked, a draining process refuses, and bytes that are no message of the method's type are refused as the caller's mistake.
 */
import {
  ServerInterceptingCall,
  type ServerInterceptor,
  type ServiceDefinition,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { type StatusError, statusError, toServiceError } from "@taskmesh/runtime";
import type { Authenticator } from "./auth.js";

export interface GuardOptions {
  authenticator: Authenticator;
  /** Aborted: new calls are told to go elsewhere. */
  draining: AbortSignal;
}

/** The interceptor of a listener. */
export function createGuard({ authenticator, draining }: GuardOptions): ServerInterceptor {
  return ({ path }, call) => {
    const peer = {
      // Looked at only where certificates count: reading one costs more than the rest of a call.
      get certified(): boolean {
        return call.getAuthContext().sslPeerCertificate !== undefined;
      },
    };
    const guarded: ServerInterceptingCall = new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveMetadata(metadata, forward) {
            const refusal =
              (authenticator.required ? authenticator.refuse(path, metadata, peer) : undefined) ??
              (draining.aborted ? refuseDraining(path) : undefined);
            if (refusal) guarded.sendStatus(toServiceError(refusal));
            else forward(metadata);
          },
          onReceiveMessage(message, forward) {
            if (!(message instanceof Malformed)) forward(message);
            else guarded.sendStatus(toServiceError(malformedRequest(message.cause)));
          },
        }),
    });
    return guarded;
  };
}

/** Health must be readable until the end: that is how a load balancer learns that the process drains. */
function refuseDraining(path: string): StatusError | undefined {
  if (path.startsWith("/grpc.health.v1.Health/")) return undefined;
  return statusError({ reason: "DRAINING", message: "the coordinator is shutting down; retry", retryAfterMs: 500 });
}

function malformedRequest(cause: unknown): StatusError {
  return statusError({ reason: "ARGUMENT_INVALID", message: "the request is not a valid message of its type", cause });
}

/** Stands for request bytes that could not be decoded, until the guard meets it. */
class Malformed {
  constructor(readonly cause: unknown) {}
}

/**
 * A service whose decoders never throw. The library answers INTERNAL when one does, as if the fault were ours; the guard answers
 * INVALID_ARGUMENT.
 */
export function withSafeDecoding<T extends UntypedServiceImplementation>(
  definition: ServiceDefinition<T>,
): ServiceDefinition<T> {
  const safe = Object.entries(definition as ServiceDefinition).map(([name, method]) => {
    const requestDeserialize = (bytes: Buffer): unknown => {
      try {
        return method.requestDeserialize(bytes);
      } catch (error) {
        return new Malformed(error);
      }
    };
    return [name, { ...method, requestDeserialize }];
  });
  return Object.fromEntries(safe) as ServiceDefinition<T>;
}
