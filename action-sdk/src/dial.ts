/**
 * gRPC clients of one coordinator.
 *
 * Control (session, claims) and bulk (payloads) have a connection each; the relay brings its own: a payload of 64 MiB must not hold up a beat.
 */
import { PayloadServiceClient, RegistryServiceClient } from "@taskmesh/proto";
import { type Address, type ClientConfig, createClient, formatAddress } from "@taskmesh/runtime";

/** The clients of one coordinator. */
export interface Dialled {
  /** `host:port`. */
  address: string;
  registry: RegistryServiceClient;
  /** On a connection of its own, made when it is first used. */
  payload(): PayloadServiceClient;
  close(): void;
}

/** Workers of one process don't share a connection, nor do control and bulk. */
const ownConnection = { "grpc.use_local_subchannel_pool": 1 };

/** Makes the clients; connects when the first call is made. */
export function dial(address: Address, config: Pick<ClientConfig, "token" | "tls">): Dialled {
  const channel = { ...config, addresses: [address] };
  const registry = createClient(RegistryServiceClient, channel, { streams: true, options: ownConnection });
  let payload: PayloadServiceClient | undefined;
  return {
    address: formatAddress(address),
    registry,
    payload() {
      payload ??= createClient(PayloadServiceClient, channel, { streams: true, options: ownConnection });
      return payload;
    },
    close() {
      registry.close();
      payload?.close();
    },
  };
}
