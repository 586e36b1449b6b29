/**
 * Strict schemas of the custom resources that the chart renders: the fields that it uses, as their operators declare them, and no other.
 * A field that the chart begins to use is to be looked up in the operator's API reference and added here.
 */
type Schema = Record<string, unknown>;

const text: Schema = { type: "string", minLength: 1 };
const texts: Schema = { type: "object", additionalProperties: { type: "string" } };
const object = (properties: Record<string, Schema>, required: string[] = []): Schema => ({
  type: "object",
  properties,
  required,
  additionalProperties: false,
});
const list = (items: Schema): Schema => ({ type: "array", items, minItems: 1 });
/** Prometheus' durations, and Go's for cert-manager. */
const duration: Schema = { type: "string", pattern: "^([0-9]+(ms|s|m|h|d|w|y))+$" };
const secretKey = object({ name: text, key: text }, ["name", "key"]);

const resource = (apiVersion: string, kind: string, spec: Schema): Schema =>
  object(
    {
      apiVersion: { const: apiVersion },
      kind: { const: kind },
      metadata: { $ref: "/api/_definitions.json#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta" },
      spec,
    },
    ["apiVersion", "kind", "metadata", "spec"],
  );

const secretOrConfigMap = object({ secret: secretKey });

const serviceMonitor = object(
  {
    selector: object({ matchLabels: texts }),
    jobLabel: text,
    endpoints: list(
      object(
        {
          port: text,
          path: text,
          interval: duration,
          scheme: { enum: ["http", "https"] },
          authorization: object({ type: text, credentials: secretKey }),
          tlsConfig: object({ serverName: text, ca: secretOrConfigMap, cert: secretOrConfigMap, keySecret: secretKey }),
        },
        ["port"],
      ),
    ),
  },
  ["selector", "endpoints"],
);

const podMonitor = object(
  {
    selector: object({ matchLabels: texts }),
    jobLabel: text,
    podMetricsEndpoints: list(
      object(
        { port: text, path: text, interval: duration, authorization: object({ type: text, credentials: secretKey }) },
        ["port"],
      ),
    ),
  },
  ["selector", "podMetricsEndpoints"],
);

const rule = object({ alert: text, record: text, expr: text, for: duration, labels: texts, annotations: texts }, [
  "expr",
]);
const prometheusRule = object(
  { groups: list(object({ name: text, interval: duration, rules: list(rule) }, ["name", "rules"])) },
  ["groups"],
);

const certificate = object(
  {
    secretName: text,
    duration,
    renewBefore: duration,
    commonName: { ...text, maxLength: 64 },
    dnsNames: list(text),
    usages: list({ enum: ["server auth", "client auth"] }),
    privateKey: object({
      algorithm: { enum: ["RSA", "ECDSA", "Ed25519"] },
      size: { type: "integer" },
      rotationPolicy: { enum: ["Always", "Never"] },
    }),
    issuerRef: object({ name: text, kind: text, group: text }, ["name"]),
  },
  ["secretName", "issuerRef"],
);

const scaledObject = object(
  {
    scaleTargetRef: object({ name: text }, ["name"]),
    minReplicaCount: { type: "integer", minimum: 0 },
    maxReplicaCount: { type: "integer", minimum: 1 },
    pollingInterval: { type: "integer", minimum: 1 },
    cooldownPeriod: { type: "integer", minimum: 0 },
    // KEDA takes the metadata of a trigger as texts, numbers among them.
    triggers: list(
      object(
        {
          type: { const: "prometheus" },
          metadata: {
            ...object({ serverAddress: text, query: text, threshold: { type: "string", pattern: "^[0-9.]+$" } }),
            required: ["serverAddress", "query", "threshold"],
          },
        },
        ["type", "metadata"],
      ),
    ),
  },
  ["scaleTargetRef", "triggers"],
);

/** By apiVersion and kind. */
export const customResources: Readonly<Record<string, Schema>> = {
  "monitoring.coreos.com/v1 ServiceMonitor": resource("monitoring.coreos.com/v1", "ServiceMonitor", serviceMonitor),
  "monitoring.coreos.com/v1 PodMonitor": resource("monitoring.coreos.com/v1", "PodMonitor", podMonitor),
  "monitoring.coreos.com/v1 PrometheusRule": resource("monitoring.coreos.com/v1", "PrometheusRule", prometheusRule),
  "cert-manager.io/v1 Certificate": resource("cert-manager.io/v1", "Certificate", certificate),
  "keda.sh/v1alpha1 ScaledObject": resource("keda.sh/v1alpha1", "ScaledObject", scaledObject),
};
