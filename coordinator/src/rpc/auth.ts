/**
 * Who may call: whoever shows one of the bearer tokens, or a client certificate of the configured authority. Where neither is
 * configured anyone on this machine may (a public address without either is refused at the start). Health is for everyone:
 * a load balancer has no token.
 */
import type { Metadata } from "@grpc/grpc-js";
import { bearerToken, type StatusError, statusError, type TokenCheck } from "@taskmesh/runtime";

/** What is known of the connection that a call came over. */
export interface Peer {
  /** A client certificate was shown, and TLS has verified it. */
  certified: boolean;
}

export interface Authenticator {
  /** False: anyone may call, and nothing is checked. */
  readonly required: boolean;
  /** Why the call is refused; undefined: it may go on. */
  refuse(path: string, metadata: Metadata, peer: Peer): StatusError | undefined;
}

const openServices = ["/grpc.health.v1.Health/"];

/** The check for a listener's tokens and client authority. */
export function createAuthenticator(tokens: TokenCheck, clientCertificates: boolean): Authenticator {
  return {
    required: tokens.required || clientCertificates,
    refuse(path, metadata, peer) {
      if (clientCertificates && peer.certified) return undefined;
      if (openServices.some((service) => path.startsWith(service))) return undefined;
      const token = bearerToken(metadata.get("authorization")[0]?.toString());
      if (token === undefined) {
        const message = tokens.required ? "a bearer token is required" : "a client certificate is required";
        return statusError({ reason: "TOKEN_MISSING", message });
      }
      if (tokens.required && tokens.accepts(token)) return undefined;
      return statusError({ reason: "TOKEN_INVALID", message: "the bearer token is not valid" });
    },
  };
}
