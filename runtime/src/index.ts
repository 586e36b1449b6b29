export * from "./backoff.js";
export * from "./chain-document.js";
export * from "./chain-format.js";
export type { DocumentProblem, TextPlace } from "./chain-reader.js";
export * from "./client.js";
export * from "./clock.js";
export * from "./config.js";
export * from "./credentials.js";
export * from "./failure-reasons.js";
export * from "./finding.js";
export * from "./health-server.js";
export * from "./http-rule.js";
export * from "./json-faults.js";
export * from "./local-names.js";
export * from "./log.js";
export type { AnyMetric, Label as MetricLabel } from "./metric-values.js";
export * from "./metrics.js";
export * from "./metrics-server.js";
export * from "./nearest-name.js";
export * from "./path-template.js";
export * from "./process-config.js";
export * from "./protobuf-json.js";
export * from "./reasons.js";
export * from "./service.js";
export * as settingKinds from "./setting-kinds.js";
export { type Address, formatAddress, isLoopback, parseAddress } from "./setting-kinds.js";
export * from "./settings.js";
export * from "./sha256.js";
export * from "./status.js";
export * from "./step-messages.js";
export * from "./strict-json.js";
export * from "./telemetry.js";
export * from "./telemetry-start.js";
export {
  createJetStreamCarrier,
  type JetStreamCarrier,
  type JetStreamCounters,
  type JetStreamOptions,
} from "./transport/jetstream.js";
export { openJetStreamWork } from "./transport/jetstream-work.js";
export { MemoryBus, type MemoryBusOptions } from "./transport/memory.js";
export { OpenNatsRefused } from "./transport/nats-credentials.js";
export { diagnoseNats, type NatsDiagnosisOptions } from "./transport/nats-diagnose.js";
export { openRelayWork, type RelayOptions } from "./transport/relay.js";
export { readRelayOpen, serveRelay } from "./transport/relay-bridge.js";
export * from "./transport/transport.js";
export * from "./uuid.js";
export * from "./wire.js";
export { isGroup } from "./wire-shape.js";
export * from "./wire-writer.js";
