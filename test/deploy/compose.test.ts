/** What the compose file and the files that it mounts say of each other, and what real servers say of them. */
import { execFileSync, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { natsServerBin } from "../fixtures/nats.js";
import { promtool } from "../fixtures/promtool.js";
import { chart, render } from "./manifests.js";

interface Service {
  image: string;
  command?: string[];
  environment?: Record<string, string>;
  ports?: string[];
  volumes?: string[];
  healthcheck?: { test: string[] };
  depends_on?: string[] | Record<string, { condition: string }>;
  stop_grace_period?: string;
}

const deploy = join(import.meta.dirname, "..", "..", "deploy");
const yaml = (path: string): unknown => parse(readFileSync(join(deploy, path), "utf8"), { merge: true });
const { services } = yaml("compose/compose.yaml") as { services: Record<string, Service> };
const service = (name: string): Service => {
  const found = services[name];
  if (!found) throw new Error(`there is no service ${name}`);
  return found;
};
const ours = Object.entries(services).filter(([, { command }]) => command?.[0]?.endsWith("main.js"));

/** The port that a service opens by its environment at `variable`. */
const portOf = (name: string, variable: string): string | undefined =>
  service(name).environment?.[variable]?.split(":").at(-1);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "taskmesh-compose-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("the compose file", () => {
  it("has everything of a mesh, and what shows it, each image of a fixed version", () => {
    const wanted = ["postgres", "nats", "coordinator-1", "coordinator-2", "gateway", "actions"];
    expect(Object.keys(services)).toEqual(
      expect.arrayContaining([...wanted, "otel-collector", "tempo", "prometheus", "grafana"]),
    );
    for (const [name, { image }] of Object.entries(services))
      expect(image, name).toMatch(/:(dev|v?\d+(\.\d+)*(-[a-z]+)?)$/);
  });

  it("waits only for services that exist, and for the health only of those that tell it", () => {
    for (const [name, { depends_on }] of Object.entries(services)) {
      if (Array.isArray(depends_on)) for (const other of depends_on) service(other);
      else
        for (const [other, { condition }] of Object.entries(depends_on ?? {})) {
          const { healthcheck } = service(other);
          expect(condition !== "service_healthy" || healthcheck !== undefined, `${name} waits for ${other}`).toBe(true);
        }
    }
  });

  it("asks every role for its health, and gives it longer to stop than it takes", () => {
    for (const [name, { healthcheck, environment, stop_grace_period }] of ours) {
      const role = name === "actions" ? "worker" : name.replace(/-\d$/, "");
      expect(healthcheck?.test, name).toEqual(["CMD", "node", "deploy/healthcheck.mjs", role]);
      expect(environment?.["TASKMESH_HEALTH_ADDRESS"], name).toBe("127.0.0.1:7470");
      expect(Number.parseInt(stop_grace_period ?? "", 10), name).toBeGreaterThanOrEqual(40);
    }
  });

  it("opens ports of the host to itself alone", () => {
    for (const { ports } of Object.values(services))
      for (const port of ports ?? []) expect(port).toMatch(/^127\.0\.0\.1:/);
  });
});

describe("what it mounts", () => {
  it("brings spans from every role over the collector to Tempo, where Grafana reads them", () => {
    interface Receivers {
      otlp: { protocols: { http: { endpoint: string } } };
    }
    const collector = yaml("compose/otel-collector.yaml") as {
      receivers: Receivers;
      processors: object;
      exporters: Record<string, { endpoint: string }>;
      service: { pipelines: Record<string, { receivers: string[]; processors: string[]; exporters: string[] }> };
    };
    const tempo = yaml("compose/tempo.yaml") as {
      distributor: { receivers: Receivers };
      server: { http_listen_port: number };
    };
    const listens = ({ otlp }: Receivers): string => otlp.protocols.http.endpoint.replace("0.0.0.0", "");
    for (const [name, { environment }] of ours) {
      const endpoint = environment?.["OTEL_EXPORTER_OTLP_ENDPOINT"];
      expect(endpoint, name).toBe(`http://otel-collector${listens(collector.receivers)}`);
    }
    const pipeline = collector.service.pipelines["traces"]!;
    for (const receiver of pipeline.receivers) expect(Object.keys(collector.receivers)).toContain(receiver);
    for (const processor of pipeline.processors) expect(Object.keys(collector.processors)).toContain(processor);
    const [exporter] = pipeline.exporters;
    expect(collector.exporters[exporter!]?.endpoint).toBe(`http://tempo${listens(tempo.distributor.receivers)}`);
    const { datasources } = yaml("grafana/provisioning/datasources/taskmesh.yaml") as {
      datasources: { type: string; url: string }[];
    };
    const urls = Object.fromEntries(datasources.map(({ type, url }) => [type, url]));
    expect(urls).toEqual({
      tempo: `http://tempo:${tempo.server.http_listen_port}`,
      prometheus: "http://prometheus:9090",
    });
    service("prometheus");
  });

  it("has Prometheus scrape every role where it serves metrics, with the token", () => {
    const { scrape_configs } = yaml("prometheus/prometheus.yml") as {
      scrape_configs: { authorization: { credentials: string }; static_configs: { targets: string[] }[] }[];
    };
    const targets = scrape_configs.flatMap((one) => one.static_configs.flatMap((config) => config.targets));
    const expected = ours.map(([name]) => {
      const variables = ["TASKMESH_METRICS_ADDRESS", "TASKMESH_HTTP_ADDRESS", "TASKMESH_WORKER_METRICS_ADDRESS"];
      return `${name}:${variables.map((variable) => portOf(name, variable)).find((port) => port !== undefined)}`;
    });
    expect(targets.toSorted()).toEqual(expected.toSorted());
    for (const { authorization } of scrape_configs) {
      expect(service("gateway").environment?.["TASKMESH_TOKEN"]).toContain(`:-${authorization.credentials}}`);
    }
  });

  it("is a configuration that Prometheus takes, alerts included", async () => {
    await cp(join(deploy, "prometheus"), join(folder, "prometheus"), { recursive: true });
    const { clean, output } = promtool(["check", "config", join(folder, "prometheus/prometheus.yml")]);
    expect(clean, output).toBe(true);
    expect(output).toContain("rules found");
    expect(service("prometheus").volumes).toEqual(
      expect.arrayContaining(["../prometheus/alerts.yml:/etc/prometheus/alerts.yml:ro"]),
    );
  });

  it("is a configuration that nats-server takes, here and in the chart, with keys that are made for it", async () => {
    const keys = join(folder, "keys");
    execFileSync(process.execPath, [join(deploy, "nats-keys.mjs"), keys]);
    const trial = await render("-f", join(chart, "ci/trial.yaml"));
    const map = trial.find(({ kind, metadata }) => kind === "ConfigMap" && metadata.name === "mesh-1-nats");
    // Keys are mounted below the configuration's folder, which is what it can name.
    expect(service("nats").volumes).toEqual(expect.arrayContaining(["keys:/etc/nats/keys:ro"]));
    const configs = {
      compose: { text: readFileSync(join(deploy, "compose/nats.conf"), "utf8"), mount: "keys" },
      chart: { text: map?.data?.["nats.conf"] ?? "", mount: "auth" },
    };
    for (const [name, { text, mount }] of Object.entries(configs)) {
      const place = join(folder, name);
      await mkdir(place);
      await cp(keys, join(place, mount), { recursive: true });
      await writeFile(join(place, "nats.conf"), text.replace("/data", join(place, "data")));
      const { status, stderr } = spawnSync(natsServerBin(), ["-t", "-c", join(place, "nats.conf")], {
        encoding: "utf8",
      });
      expect(status, `${name}: ${stderr}`).toBe(0);
    }
  });
});
