/** The chart, with a real helm: every set of values in its folder `ci` renders to objects that the API takes, unknown fields being faults. */
import { execFileSync } from "node:child_process";
import { access, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allSettings } from "@taskmesh/runtime";
import { beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { kubernetesVersions } from "../fixtures/tools.js";
import { chart, helm, type Manifest, ManifestCheck, render } from "./manifests.js";

interface Container {
  name: string;
  args?: string[];
  env?: { name: string; value?: string }[];
  ports?: { name: string; containerPort: number }[];
  lifecycle?: { preStop: { sleep: { seconds: number } } };
  securityContext: Record<string, unknown>;
  resources: { requests: object; limits: object };
  volumeMounts?: { name: string; mountPath: string; readOnly?: boolean }[];
  livenessProbe?: Probe;
  readinessProbe?: Probe;
  startupProbe?: Probe;
}
interface Probe {
  httpGet?: { path: string; port: string; scheme?: string };
}
interface PodSpec {
  automountServiceAccountToken: boolean;
  terminationGracePeriodSeconds?: number;
  securityContext: Record<string, unknown>;
  containers: Container[];
  volumes?: { name: string }[];
  topologySpreadConstraints?: unknown[];
}

const sets = (await readdir(join(chart, "ci"))).map((file) => file.replace(/\.yaml$/, ""));
const values = (set: string): string[] => ["-f", join(chart, "ci", `${set}.yaml`)];
const rendered = new Map<string, Manifest[]>();
const checks: ManifestCheck[] = [];

beforeAll(async () => {
  await Promise.all(sets.map(async (set) => rendered.set(set, await render(...values(set)))));
  for (const version of kubernetesVersions) checks.push(await ManifestCheck.of(version));
}, 300_000);

const of = (set: string): Manifest[] => rendered.get(set)!;
const all = (): Manifest[] => [...rendered.values()].flat();
const named = (set: string, kind: string, name: string): Manifest => {
  const found = of(set).find((one) => one.kind === kind && one.metadata.name === name);
  if (!found)
    throw new Error(`${set} has no ${kind} ${name}: ${of(set).map((one) => `${one.kind}/${one.metadata.name}`)}`);
  return found;
};

/** Pods of an object, whatever makes them. */
function podOf(manifest: Manifest): PodSpec | undefined {
  if (manifest.kind === "Pod") return manifest.spec as PodSpec;
  return (manifest.spec as { template?: { spec: PodSpec } } | undefined)?.template?.spec;
}
const pods = (): { name: string; pod: PodSpec }[] =>
  all().flatMap((one) => {
    const pod = podOf(one);
    return pod ? [{ name: `${one.kind}/${one.metadata.name}`, pod }] : [];
  });
const podNamed = (set: string, name: string): PodSpec => podOf(named(set, "Deployment", name))!;
const envOf = (pod: PodSpec): Record<string, string | undefined> =>
  Object.fromEntries((pod.containers[0]!.env ?? []).map(({ name, value }) => [name, value]));
/** Containers of the mesh's own roles, not those of sub-charts. */
const roles = (): { name: string; pod: PodSpec; container: Container }[] =>
  pods()
    .filter(({ name }) => name.startsWith("Deployment/"))
    .map(({ name, pod }) => ({ name, pod, container: pod.containers[0]! }));

describe("every set of values", () => {
  it("renders, eight sets at least", () => {
    expect(sets.length).toBeGreaterThanOrEqual(8);
    for (const set of sets) expect(of(set).length, set).toBeGreaterThan(1);
  });

  it("passes helm's lint, warnings being faults", async () => {
    // The defaults too: helm's lint takes what must be given for given.
    const said = await Promise.all([[], ...sets.map(values)].map((set) => helm("lint", "--strict", chart, ...set)));
    for (const text of said) expect(text).toContain("0 chart(s) failed");
  });

  it("makes objects that the oldest and the newest Kubernetes take, field by field", () => {
    expect(checks.flatMap((check) => all().flatMap((one) => check.faults(one)))).toEqual([]);
    const kinds = new Set(all().map(({ kind }) => kind));
    for (const kind of [
      "ServiceMonitor",
      "Certificate",
      "ScaledObject",
      "HorizontalPodAutoscaler",
      "Ingress",
      "StatefulSet",
    ]) {
      expect(kinds, kind).toContain(kind);
    }
  });

  it("names nothing twice, and nothing too long", () => {
    for (const set of sets) {
      const names = of(set).map(({ kind, metadata }) => `${kind}/${metadata.name}`);
      expect(new Set(names).size, set).toBe(names.length);
      for (const { metadata } of of(set)) expect(metadata.name.length).toBeLessThanOrEqual(63);
    }
  });
});

describe("the check itself", () => {
  it("finds unknown fields, wrong types, missing fields and unknown kinds", () => {
    const deployment = (): Manifest => structuredClone(named("minimal", "Deployment", "mesh-1-taskmesh-gateway"));
    for (const check of checks) {
      const unknown = deployment();
      (podOf(unknown)!.containers[0] as object as { livenesProbe: object }).livenesProbe = {};
      expect(check.faults(unknown).join()).toContain('"additionalProperty":"livenesProbe"');
      const wrong = deployment();
      podOf(wrong)!.terminationGracePeriodSeconds = "long" as never;
      expect(check.faults(wrong).join()).toContain("terminationGracePeriodSeconds");
      const missing = deployment();
      delete (missing.spec as { selector?: object }).selector;
      expect(check.faults(missing).join()).toContain("selector");
      const empty = deployment();
      (empty.metadata as object as { labels: null }).labels = null;
      expect(check.faults(empty).join()).toContain("/metadata/labels: is null");
      expect(() => check.faults({ ...deployment(), kind: "Deploiment" })).toThrow("deploiment-apps-v1.json");
      const monitor = structuredClone(named("monitoring", "ServiceMonitor", "mesh-1-taskmesh-gateway"));
      (monitor.spec as { endpoints: Record<string, unknown>[] }).endpoints[0]!["bearerTokenFil"] = "x";
      expect(check.faults(monitor).join()).toContain("bearerTokenFil");
    }
  });
});

describe("the values' schema", () => {
  const refused = async (...args: string[]): Promise<string> =>
    helm("template", "mesh-1", chart, ...values("minimal"), ...args).then(
      () => "accepted",
      (error: Error) => error.message,
    );

  it.each([
    ["gateway.replica=3", "additional properties 'replica' not allowed"],
    ["workers.pages.slotz=3", "additional properties 'slotz' not allowed"],
    ["nats.foo=1", "additional properties 'foo' not allowed"],
    ["image.digest=latest", "/image/digest"],
    ["logLevel=loud", "/logLevel"],
    ["coordinator.replicas=many", "/coordinator/replicas"],
    ["coordinator.pdb.maxUnavailable=120%", "/coordinator/pdb/maxUnavailable"],
    ["workers.UPPER.slots=1", "UPPER"],
    ["workers.pages.drainTimeoutSeconds=-1", "/workers/pages/drainTimeoutSeconds"],
    ["broker.urls[0]=http://nats:4222", "/broker/urls/0"],
    ["gateway.resources.limits.memory=lots", "/gateway/resources/limits/memory"],
    ["networkPolicy.httpFrom[0].podSelektor.x=y", "podSelektor"],
    ["namespaces[0]=Not_A_Name", "/namespaces/0"],
  ])("refuses %s", async (setting, message) => {
    expect(await refused("--set", setting)).toContain(message);
  });

  it("has every setting of values.yaml, and no other", async () => {
    const schema = JSON.parse(await readFile(join(chart, "values.schema.json"), "utf8")) as Schema;
    const defaults = parse(await readFile(join(chart, "values.yaml"), "utf8")) as object;
    expect(namesIn(schema, schema)).toEqual(expect.arrayContaining(keysOf(defaults)));
    const unlisted = namesIn(schema, schema).filter(
      (path) => !keysOf(defaults).includes(path) && !/(^|\.)global$/.test(path),
    );
    expect(unlisted).toEqual([]);
  });

  it("lets no object through that it does not describe", async () => {
    for (const file of ["values.schema.json", "charts/nats/values.schema.json", "charts/postgres/values.schema.json"]) {
      const open: string[] = [];
      const walk = (value: unknown, path: string): void => {
        if (typeof value !== "object" || value === null) return;
        const { properties, additionalProperties } = value as Schema;
        if (
          properties &&
          typeof properties === "object" &&
          !("type" in properties && typeof properties["type"] === "string")
        ) {
          if (additionalProperties !== false && !path.endsWith("/properties")) open.push(path);
        }
        for (const [key, inner] of Object.entries(value)) walk(inner, `${path}/${key}`);
      };
      walk(JSON.parse(await readFile(join(chart, file), "utf8")), "");
      expect(open, file).toEqual([]);
    }
  });
});

describe("settings that need each other", () => {
  it("are all told at once, each with its fix", async () => {
    const bad = [
      "--set",
      "tls.mutual=true,ingress.grpc.enabled=true,workers.a.keda.enabled=true,workers.a.autoscaling.enabled=true",
    ];
    const message = await helm("template", "mesh-1", chart, ...bad).then(
      () => "",
      (error: Error) => error.message,
    );
    for (const setting of [
      "auth.existingSecret",
      "database.existingSecret",
      "broker.urls",
      "broker.existingSecret",
      "tls.mutual",
      "ingress.grpc.host",
      "ingress.grpc.tlsSecretName",
      "networkPolicy.grpcFrom",
      "workers.a.keda.enabled",
      "workers.a.keda.prometheus",
    ]) {
      expect(message).toContain(`  ${setting}: `);
    }
  });
});

describe("every pod", () => {
  it("meets the restricted Pod Security Standard, writes nowhere and has no token of the cluster", () => {
    for (const { name, pod } of pods()) {
      expect(pod.automountServiceAccountToken, name).toBe(false);
      expect(pod.securityContext, name).toMatchObject({
        runAsNonRoot: true,
        seccompProfile: { type: "RuntimeDefault" },
      });
      for (const container of pod.containers) {
        expect(container.securityContext, name).toEqual({
          allowPrivilegeEscalation: false,
          capabilities: { drop: ["ALL"] },
          readOnlyRootFilesystem: true,
          runAsNonRoot: true,
        });
        expect(Object.keys(container.resources).sort(), name).toEqual(["limits", "requests"]);
        const declared = new Set(pod.volumes?.map((volume) => volume.name));
        if (!name.startsWith("StatefulSet/"))
          for (const mount of container.volumeMounts ?? []) expect(declared, name).toContain(mount.name);
      }
    }
    for (const one of all().filter(({ kind }) => kind === "ServiceAccount")) {
      expect((one as unknown as { automountServiceAccountToken: boolean }).automountServiceAccountToken).toBe(false);
    }
    expect(all().filter(({ kind }) => /^(Cluster)?Role(Binding)?$|^Secret$/.test(kind))).toEqual([]);
  });

  it("is selected by exactly one default-deny policy, unless policies are off", () => {
    for (const set of sets.filter((name) => name !== "platform")) {
      const { podSelector, policyTypes } = named(set, "NetworkPolicy", "mesh-1-taskmesh-default-deny").spec as {
        podSelector: { matchLabels: Record<string, string> };
        policyTypes: string[];
      };
      expect(policyTypes).toEqual(["Ingress", "Egress"]);
      for (const one of of(set)) {
        const template = (one.spec as { template?: Manifest } | undefined)?.template;
        if (template?.metadata?.labels)
          expect(template.metadata.labels, one.metadata.name).toMatchObject(podSelector.matchLabels);
      }
    }
    expect(of("platform").filter(({ kind }) => kind === "NetworkPolicy")).toEqual([]);
  });
});

describe("every role", () => {
  it("is given only variables that exist, and files that are mounted", () => {
    const known = new Set(
      allSettings.flatMap((settings) =>
        Object.values(settings).flatMap(({ variable }) => [variable, `${variable}_FILE`]),
      ),
    );
    const own = new Set(["REGION", "BANK_KEY", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS"]);
    for (const { name, container } of [...roles(), ...jobs()]) {
      for (const { name: variable, value } of container.env ?? []) {
        expect(known.has(variable) || own.has(variable), `${name}: ${variable}`).toBe(true);
        if (!value?.startsWith("/run/taskmesh/")) continue;
        const mounts = (container.volumeMounts ?? []).filter(({ mountPath }) => value.startsWith(`${mountPath}/`));
        expect(mounts.length, `${name}: ${variable}=${value}`).toBe(1);
        expect(mounts[0]!.readOnly, name).toBe(true);
      }
    }
  });

  it("runs a file that the image has", async () => {
    for (const { name, container } of [...roles(), ...jobs()]) {
      const [file] = container.args ?? [];
      if (!JSON.stringify(container).includes('"image":"taskmesh:')) continue;
      expect(file, name).toMatch(/^(coordinator|gateway|actions)\/dist\/main\.js$/);
      await access(join(chart, "../../..", file!.replace("/dist/", "/src/").replace(/js$/, "ts")));
    }
  });

  it("is probed at the address that its environment opens, alive and ready being two questions", () => {
    for (const { name, pod, container } of roles()) {
      const port = container.ports?.find((one) => one.name === "health")?.containerPort;
      expect(envOf(pod)["TASKMESH_HEALTH_ADDRESS"], name).toBe(`0.0.0.0:${port}`);
      const paths = [container.startupProbe, container.livenessProbe, container.readinessProbe].map(
        (probe) => probe?.httpGet,
      );
      expect(paths, name).toEqual(["/livez", "/livez", "/readyz"].map((path) => ({ path, port: "health" })));
    }
  });

  it("listens where its ports and Services say", () => {
    for (const { name, pod, container } of roles()) {
      const env = envOf(pod);
      const opened = {
        grpc: env["TASKMESH_GRPC_ADDRESS"],
        http: env["TASKMESH_HTTP_ADDRESS"],
        metrics: env["TASKMESH_METRICS_ADDRESS"] ?? env["TASKMESH_WORKER_METRICS_ADDRESS"],
        health: env["TASKMESH_HEALTH_ADDRESS"],
      };
      for (const [portName, address] of Object.entries(opened)) {
        const port = container.ports?.find((one) => one.name === portName)?.containerPort;
        expect(address, `${name}: ${portName}`).toBe(port === undefined ? undefined : `0.0.0.0:${port}`);
      }
    }
    const services = of("minimal")
      .filter(({ kind }) => kind === "Service")
      .map(({ metadata }) => metadata.name);
    for (const { pod } of roles().filter(({ name }) => name.includes("mesh-1-"))) {
      const address = envOf(pod)["TASKMESH_ADDRESS"];
      if (address) expect(services).toContain(address.replace(/:7400$/, ""));
    }
  });

  it("has more time to go than its stop may take, and a new one serves before an old one goes", () => {
    for (const { name, pod, container } of roles()) {
      const env = envOf(pod);
      const stop = Number(env["TASKMESH_STOP_TIMEOUT_SECONDS"] ?? env["TASKMESH_DRAIN_TIMEOUT_SECONDS"]);
      const preStop = container.lifecycle?.preStop.sleep.seconds ?? 0;
      // After a worker's drain: grace of aborted attempts (2 s), last reports (5 s), end of the session (2 s).
      expect(pod.terminationGracePeriodSeconds, name).toBeGreaterThanOrEqual(preStop + stop + 10);
      expect(preStop > 0, name).toBe(!name.includes("-worker-"));
    }
    for (const one of all().filter(({ kind }) => kind === "Deployment")) {
      expect((one.spec as { strategy: object }).strategy).toMatchObject({
        type: "RollingUpdate",
        rollingUpdate: { maxUnavailable: 0 },
      });
    }
  });

  it("is the same over versions of the chart, so that an upgrade restarts only what changed", () => {
    for (const one of all().filter(({ kind }) => kind === "Deployment")) {
      const labels = (one.spec as { template: Manifest }).template.metadata.labels!;
      expect(Object.keys(labels).filter((label) => /chart|version/.test(label))).toEqual([]);
    }
  });
});

describe("single settings", () => {
  it("scalers take the replicas over, and never two at once", () => {
    const replicas = (set: string, name: string) =>
      (named(set, "Deployment", name).spec as { replicas?: number }).replicas;
    expect(replicas("autoscaling", "mesh-1-taskmesh-coordinator")).toBeUndefined();
    expect(replicas("workers", "mesh-1-taskmesh-worker-pages")).toBeUndefined();
    expect(replicas("workers", "mesh-1-taskmesh-worker-invoices")).toBe(3);
    expect(named("workers", "ScaledObject", "mesh-1-taskmesh-worker-pages").spec).toMatchObject({
      minReplicaCount: 0,
      triggers: [
        {
          metadata: {
            query:
              'sum(max by (queue) (taskmesh_ready_steps{taskmesh_namespace="default",queue="acme.pages.v1.PageActions"}))',
            threshold: "20",
          },
        },
      ],
    });
  });

  it("Prometheus finds one job a role, under the names of the compose file", () => {
    const labelled = (kind: string, labels: Record<string, string>): Manifest[] =>
      of("monitoring").filter((one) => {
        const own =
          kind === "Service" ? one.metadata.labels : (one.spec as { template?: Manifest })?.template?.metadata.labels;
        return one.kind === kind && Object.entries(labels).every(([key, value]) => own?.[key] === value);
      });
    const jobs = of("monitoring").flatMap((one) => {
      if (!/^(Service|Pod)Monitor$/.test(one.kind)) return [];
      const { selector, jobLabel } = one.spec as {
        selector: { matchLabels: Record<string, string> };
        jobLabel: string;
      };
      const found = labelled(one.kind === "PodMonitor" ? "Deployment" : "Service", selector.matchLabels);
      expect(found.length, one.metadata.name).toBe(1);
      const labels = one.kind === "PodMonitor" ? (found[0]!.spec as { template: Manifest }).template : found[0]!;
      return labels.metadata.labels?.[jobLabel] ?? "none";
    });
    expect(jobs.sort()).toEqual(["taskmesh-coordinator", "taskmesh-gateway", "taskmesh-worker"]);
  });

  it("an authority of one's own is trusted by every process that connects to something", () => {
    const trusting = [...roles(), ...jobs()].filter(({ container }) =>
      container.env?.some(({ name }) => name === "NODE_EXTRA_CA_CERTS"),
    );
    const names = trusting.map(({ name }) => name.replace(/^.*mesh-1-taskmesh-/, "")).sort();
    expect(names).toEqual(["coordinator", "gateway", "migrate", "worker-builtin"]);
  });

  it("workers scale by a figure that coordinators export", async () => {
    const table = await readFile(join(chart, "../../../docs/metrics.md"), "utf8");
    const queries = all().flatMap((one) =>
      one.kind === "ScaledObject" ? (one.spec as { triggers: { metadata: { query: string } }[] }).triggers : [],
    );
    expect(queries.length).toBeGreaterThan(0);
    for (const { metadata } of queries) {
      const [, metric] = /(taskmesh_[a-z_]+)\{/.exec(metadata.query) ?? [];
      const row = table.split("\n").find((line) => line.startsWith(`| \`${metric}\` `));
      expect(row).toContain("`taskmesh_namespace`, `queue`");
    }
  });

  it("a worker's own settings beat the defaults, zeros and empty ones too", () => {
    const budgets = of("workers")
      .filter(({ kind }) => kind === "PodDisruptionBudget")
      .map(({ metadata }) => metadata.name);
    expect(budgets).not.toContain("mesh-1-taskmesh-worker-pages");
    const egress = (worker: string) =>
      (named("workers", "NetworkPolicy", `mesh-1-taskmesh-worker-${worker}`).spec as { egress: { to?: unknown }[] })
        .egress;
    expect([egress("builtin").length, egress("pages").length, egress("invoices").length]).toEqual([3, 2, 3]);
    const invoices = podNamed("workers", "mesh-1-taskmesh-worker-invoices");
    expect(invoices.terminationGracePeriodSeconds).toBe(3620);
    expect(envOf(invoices)).toMatchObject({ TASKMESH_NAMESPACE: "billing", REGION: "eu-1" });
    expect(JSON.stringify(invoices)).toContain(`registry.example.com/invoices@sha256:${"0".repeat(64)}`);
    expect(of("platform").some(({ metadata }) => metadata.name.includes("worker"))).toBe(false);
  });

  it("mutual TLS gives each side its certificate, under names that are dialled", () => {
    const certificate = named("mutual-tls", "Certificate", "mesh-1-taskmesh-server").spec as { dnsNames: string[] };
    for (const worker of ["mesh-1-taskmesh-worker-builtin", "mesh-1-taskmesh-gateway"]) {
      const env = envOf(podNamed("mutual-tls", worker));
      expect(certificate.dnsNames).toContain(env["TASKMESH_ADDRESS"]!.replace(/:7400$/, ""));
      expect(env["TASKMESH_TLS_CA"]).toMatch(/ca\.crt$/);
    }
    expect(envOf(podNamed("mutual-tls", "mesh-1-taskmesh-coordinator"))["TASKMESH_TLS_CLIENT_CA"]).toMatch(/ca\.crt$/);
    expect(envOf(podNamed("tls-secrets", "mesh-1-taskmesh-coordinator"))["TASKMESH_TLS_CLIENT_CA"]).toBeUndefined();
    // The servers' key is no worker's business.
    const volumes = JSON.stringify(podNamed("tls-secrets", "mesh-1-taskmesh-worker-builtin").volumes);
    expect(volumes).toContain('"items":[{"key":"ca.crt","path":"ca.crt"}]');
  });

  it("the schema is brought up before coordinators, and after a Postgres of the release's own", () => {
    const hook = (set: string) => named(set, "Job", "mesh-1-taskmesh-migrate").metadata.annotations?.["helm.sh/hook"];
    expect(hook("minimal")).toBe("pre-install,pre-upgrade");
    expect(hook("trial")).toBe("post-install,pre-upgrade");
    const { containers } = podOf(named("minimal", "Job", "mesh-1-taskmesh-migrate"))!;
    expect(containers[0]!.args).toEqual(["coordinator/dist/main.js", "migrate"]);
    // Nothing of the release is there yet.
    expect(JSON.stringify(podOf(named("minimal", "Job", "mesh-1-taskmesh-migrate")))).not.toContain(
      "serviceAccountName",
    );
  });

  it("a long release name leaves all names whole", async () => {
    const long = `${"a".repeat(52)}b`;
    const text = await helm("template", long, chart, ...values("workers"));
    for (const [, name] of text.matchAll(/^ {2}name: (\S+)$/gm)) expect(name!.length, name).toBeLessThanOrEqual(63);
  });
});

describe("the chart", () => {
  it("has a README.md that is made of values.yaml", () => {
    execFileSync(process.execPath, [join(chart, "..", "chart-docs.mjs"), "--check"], { stdio: "pipe" });
  });

  it("brings the alerts and every dashboard of deploy/ along", async () => {
    const deploy = join(chart, "..", "..");
    const rule = named("monitoring", "PrometheusRule", "mesh-1-taskmesh").spec;
    expect(rule).toEqual(parse(await readFile(join(deploy, "prometheus/alerts.yml"), "utf8")));
    const files = (await readdir(join(deploy, "grafana/dashboards"))).filter((file) => file.endsWith(".json"));
    for (const file of files) {
      const { data } = named("monitoring", "ConfigMap", `mesh-1-taskmesh-dashboard-${file.replace(/\.json$/, "")}`);
      expect(data).toEqual({ [file]: await readFile(join(deploy, "grafana/dashboards", file), "utf8") });
    }
    const shown = of("monitoring").filter(({ metadata }) => metadata.labels?.["grafana_dashboard"] === "1");
    expect(shown.length).toBe(files.length);
  });
});

it("the chart is packed with its sub-charts, alerts and dashboards", async () => {
  const folder = await mkdtemp(join(tmpdir(), "taskmesh-chart-"));
  try {
    await helm("package", chart, "--destination", folder);
    const [archive] = await readdir(folder);
    expect(archive).toBe("taskmesh-0.1.0.tgz");
    const shown = await helm("show", "all", join(folder, archive!));
    expect(shown).toContain("workerDefaults:");
    const again = await helm("template", "mesh-1", join(folder, archive!), "--namespace", "mesh", ...values("trial"));
    expect(again).toBe(await helm("template", "mesh-1", chart, "--namespace", "mesh", ...values("trial")));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

type Schema = { [key: string]: unknown } & { properties?: Record<string, Schema>; $ref?: string };

/** Paths of all settings of a schema, with dots; settings of maps are not followed. */
function namesIn(schema: Schema, root: Schema, path = ""): string[] {
  const { $ref } = schema;
  const found = $ref ? (root["definitions"] as Record<string, Schema>)[$ref.split("/").at(-1)!]! : schema;
  const inner = Object.entries(found.properties ?? {});
  if (inner.length === 0 || $ref?.endsWith("/resources")) return path === "" ? [] : [path];
  return inner.flatMap(([key, one]) => namesIn(one, root, path === "" ? key : `${path}.${key}`));
}

/** The same of values. Maps and lists are one setting each. */
function keysOf(value: unknown, path = ""): string[] {
  const whole =
    /(^|\.)(resources|annotations|labels|workers|egress|env|secretEnv|podLabels|podAnnotations|nodeSelector|affinity)$/;
  if (typeof value !== "object" || value === null || Array.isArray(value) || whole.test(path)) return [path];
  return Object.entries(value).flatMap(([key, inner]) => keysOf(inner, path === "" ? key : `${path}.${key}`));
}

function jobs(): { name: string; container: Container }[] {
  return pods()
    .filter(({ name }) => name.startsWith("Job/"))
    .map(({ name, pod }) => ({ name, container: pod.containers[0]! }));
}
