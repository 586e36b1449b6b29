import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConfigError, readSettings, readTogether, type Settings, settingsHelp } from "./config.js";
import { redact } from "./log.js";
import { clientConfig, coordinatorConfig, gatewayConfig } from "./process-config.js";
import {
  address,
  defaulted,
  flag,
  formatAddress,
  integer,
  isLoopback,
  list,
  oneOf,
  optional,
  parseAddress,
  required,
  text,
  url,
} from "./setting-kinds.js";
import { coordinatorSettings, settingsTables } from "./settings.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "taskmesh-config-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const write = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};

const faultsOf = (read: () => unknown): ConfigError => {
  try {
    read();
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigError);
    return error as ConfigError;
  }
  throw new Error("the configuration was accepted");
};

const stores = { DATABASE_URL: "postgres://u:p@localhost/db", NATS_URL: "nats://127.0.0.1:4222" };

describe("reading settings", () => {
  const settings = {
    name: required({ variable: "NAME", doc: "A name." }, text()),
    slots: defaulted({ variable: "SLOTS", doc: "Slots." }, integer("slots", 1, 100), "10"),
    verbose: defaulted({ variable: "VERBOSE", doc: "Talk." }, flag(), "false"),
    colour: optional({ variable: "COLOUR", doc: "A colour." }, oneOf(["red", "green"])),
    hosts: optional({ variable: "HOSTS", doc: "Hosts." }, list(address())),
    link: optional({ variable: "LINK", doc: "A link." }, url("http", "https")),
    key: optional({ variable: "KEY", doc: "A key.", secret: true }, text()),
  } satisfies Settings;

  it("reads values, defaults and what is absent", () => {
    const { values, faults } = readSettings(settings, {
      NAME: " n ",
      VERBOSE: "1",
      COLOUR: "",
      HOSTS: "a:1, [::1]:2,",
    });
    expect(faults).toEqual([]);
    expect(values).toEqual({
      name: "n",
      slots: 10,
      verbose: true,
      colour: undefined,
      hosts: [
        { host: "a", port: 1 },
        { host: "::1", port: 2 },
      ],
      link: undefined,
      key: undefined,
    });
  });

  it("reports every fault at once, each with variable, problem and fix", () => {
    const { faults } = readSettings(settings, {
      SLOTS: "1e9",
      VERBOSE: "maybe",
      COLOUR: "blue",
      HOSTS: "a:1,b:99999",
      LINK: "ftp://x",
      KEY: "a",
      KEY_FILE: "/b",
    });
    expect(faults.map(({ variable }) => variable)).toEqual([
      "NAME",
      "SLOTS",
      "VERBOSE",
      "COLOUR",
      "HOSTS",
      "LINK",
      "KEY",
    ]);
    const { message } = new ConfigError(faults);
    expect(message).toContain("7 settings are wrong:");
    expect(message).toContain("NAME: is not set");
    expect(message).toContain('COLOUR: "blue" is none of red, green');
    for (const { problem, fix } of faults) expect([problem, fix].every((part) => part.length > 5)).toBe(true);
  });

  it("takes a secret from a file, and hides it", () => {
    const { values } = readSettings(settings, { NAME: "n", KEY_FILE: write("key", "  swordfish-key\n") });
    expect(values.key).toBe("swordfish-key");
    expect(redact("the swordfish-key leaked")).toBe("the [hidden] leaked");
    for (const path of [join(folder, "missing"), write("empty", "\n")]) {
      expect(readSettings(settings, { NAME: "n", KEY_FILE: path }).faults[0]).toMatchObject({ variable: "KEY_FILE" });
    }
  });

  it("never shows a secret in a fault", () => {
    const secret = { url: required({ variable: "SECRET_URL", doc: "x", secret: true }, url("postgres")) };
    const { faults } = readSettings(secret, { SECRET_URL: "mysql://u:hunter22@h/d" });
    expect(JSON.stringify(faults)).not.toContain("hunter22");
    readSettings(secret, { SECRET_URL: "postgres://mesh:p%40ss-word@db.example/mesh" });
    expect(redact("db.example refused p%40ss-word and p@ss-word")).toBe("db.example refused [hidden] and [hidden]");
  });
});

describe("addresses", () => {
  it.each([
    ["127.0.0.1:7400", "127.0.0.1:7400", true],
    ["localhost:0", "localhost:0", true],
    ["[::1]:7400", "[::1]:7400", true],
    ["127.9.9.9:1", "127.9.9.9:1", true],
    [":7400", "0.0.0.0:7400", false],
    ["0.0.0.0:7400", "0.0.0.0:7400", false],
    ["[::]:7400", "[::]:7400", false],
    ["localhost.evil.example:1", "localhost.evil.example:1", false],
    ["127.0.0.1.evil.example:1", "127.0.0.1.evil.example:1", false],
  ])("reads %s", (given, formatted, loopback) => {
    const parsed = parseAddress(given)!;
    expect(formatAddress(parsed)).toBe(formatted);
    expect(isLoopback(parsed.host)).toBe(loopback);
  });

  it.each(["", "7400", "host", "host:", "host:65536", "host:-1", "::1:7400", "http://h:1", "h:1/x", "a b:1"])(
    "refuses %j",
    (given) => {
      expect(parseAddress(given)).toBeUndefined();
    },
  );
});

describe("readTogether", () => {
  it("answers what each read, in order", () => {
    expect(
      readTogether(
        () => 1,
        () => "two",
      ),
    ).toEqual([1, "two"]);
  });

  it("reports the faults of all together, each once", () => {
    const env = { TASKMESH_NAMESPACES: "A b", TASKMESH_HTTP_ADDRESS: "nowhere" };
    const { faults } = faultsOf(() =>
      readTogether(
        () => coordinatorConfig(env),
        () => gatewayConfig(env),
      ),
    );
    expect(faults.map(({ variable }) => variable)).toEqual([
      "TASKMESH_NAMESPACES",
      "DATABASE_URL",
      "NATS_URL",
      "TASKMESH_HTTP_ADDRESS",
    ]);
    const defect = new TypeError("a defect");
    expect(() =>
      readTogether(
        () => gatewayConfig(env),
        () => {
          throw defect;
        },
      ),
    ).toThrow(defect);
  });
});

describe("the configuration of a coordinator", () => {
  it("needs only its stores, and listens on loopback", () => {
    expect(coordinatorConfig(stores)).toEqual({
      databaseUrl: stores.DATABASE_URL,
      allowUnsafeDatabase: false,
      nats: { servers: [stores.NATS_URL], replicas: 1 },
      grpcAddress: { host: "127.0.0.1", port: 7400 },
      metricsAddress: { host: "127.0.0.1", port: 7490 },
      namespaces: ["default"],
      publicUrl: "http://127.0.0.1:7480",
      tokens: { tokens: [] },
      logLevel: "info",
      stopTimeoutMs: 30_000,
      warnings: [],
    });
    expect(coordinatorConfig({ TASKMESH_METRICS_ADDRESS: "off" }, { embedded: true })).not.toHaveProperty(
      "metricsAddress",
    );
  });

  it("reports what is missing and what is wrong together", () => {
    const { faults } = faultsOf(() =>
      coordinatorConfig({
        TASKMESH_GRPC_ADDRESS: "nowhere",
        TASKMESH_NAMESPACES: "A b",
        TASKMESH_TLS_CERT: "/missing",
        TASKMESH_LOG_LEVEL: "loud",
      }),
    );
    expect(faults.map(({ variable }) => variable).sort()).toEqual([
      "DATABASE_URL",
      "NATS_URL",
      "TASKMESH_GRPC_ADDRESS",
      "TASKMESH_LOG_LEVEL",
      "TASKMESH_NAMESPACES",
      "TASKMESH_TLS_CERT",
    ]);
  });

  describe("at a public address", () => {
    const open = { ...stores, TASKMESH_GRPC_ADDRESS: "0.0.0.0:7400" };
    const token = "0123456789abcdef0123456789abcdef";

    it("is refused without a guard", () => {
      const { faults } = faultsOf(() => coordinatorConfig(open));
      expect(faults).toHaveLength(1);
      expect(faults[0]).toMatchObject({
        variable: "TASKMESH_GRPC_ADDRESS",
        problem: "0.0.0.0:7400 can be reached from other machines, and nothing guards it",
      });
    });

    it("is refused with a token that can be guessed, and with TLS alone", () => {
      expect(faultsOf(() => coordinatorConfig({ ...open, TASKMESH_TOKEN: "short-token" })).message).toContain(
        "fewer than 16",
      );
      const pem = write("some.pem", "x");
      const tls = { TASKMESH_TLS_CERT: pem, TASKMESH_TLS_KEY: pem };
      expect(faultsOf(() => coordinatorConfig({ ...open, ...tls })).message).toContain("nothing guards it");
    });

    it("is accepted with a token, with a warning while there is no TLS", () => {
      const config = coordinatorConfig({ ...open, TASKMESH_TOKEN: token });
      expect(config.warnings).toEqual([expect.stringContaining("tokens travel in the clear")]);
    });

    it("is accepted with client certificates", () => {
      const [cert, key, ca] = ["cert", "key", "ca"].map((name) => write(`${name}.pem`, name));
      const mtls = { TASKMESH_TLS_CERT: cert, TASKMESH_TLS_KEY: key, TASKMESH_TLS_CLIENT_CA: ca };
      const config = coordinatorConfig({ ...open, ...mtls });
      expect(config.tls).toEqual({ cert: "cert", key: "key", clientCa: "ca" });
      expect(config.warnings).toEqual([]);
    });

    it("counts for metrics too", () => {
      const { faults } = faultsOf(() => coordinatorConfig({ ...stores, TASKMESH_METRICS_ADDRESS: ":7490" }));
      expect(faults[0]?.variable).toBe("TASKMESH_METRICS_ADDRESS");
    });

    it("counts for an open NATS server", () => {
      const far = { ...stores, NATS_URL: "nats://127.0.0.1:4222,nats://broker:4222" };
      expect(faultsOf(() => coordinatorConfig(far)).message).toContain("broker:4222 is on another machine");
      const toWorkers = { ...stores, NATS_WORKER_URL: "nats://broker:4222" };
      expect(faultsOf(() => coordinatorConfig(toWorkers)).faults[0]?.variable).toBe("NATS_WORKER_URL");
      const seed = { ...far, NATS_ACCOUNT_SEED: "SA-seed-of-the-account", NATS_ACCOUNT_ID: "A1" };
      expect(faultsOf(() => coordinatorConfig(seed)).faults[0]?.variable).toBe("NATS_CREDENTIALS");
      expect(coordinatorConfig({ ...seed, NATS_CREDENTIALS: "creds-of-the-user" }).nats).toMatchObject({
        credentials: "creds-of-the-user",
        accountSeed: "SA-seed-of-the-account",
        accountId: "A1",
      });
    });
  });

  it("reads several tokens from a file, one a line", () => {
    const file = write("tokens", "# current\nfirst-token-of-two\n\n  second-token-of-two\r\n");
    expect(coordinatorConfig({ ...stores, TASKMESH_TOKEN_FILE: file }).tokens).toEqual({
      tokens: ["first-token-of-two", "second-token-of-two"],
      file,
    });
    expect(redact("second-token-of-two")).toBe("[hidden]");
    const comments = write("comments", "# nothing yet\n");
    expect(faultsOf(() => coordinatorConfig({ ...stores, TASKMESH_TOKEN_FILE: comments })).message).toContain(
      "has no token",
    );
  });

  it("wants both halves of a certificate", () => {
    const pem = write("half.pem", "x");
    expect(faultsOf(() => coordinatorConfig({ ...stores, TASKMESH_TLS_CERT: pem })).faults).toEqual([
      { variable: "TASKMESH_TLS_KEY", problem: "is not set, but TASKMESH_TLS_CERT is", fix: "Set both, or neither." },
    ]);
    expect(faultsOf(() => coordinatorConfig({ ...stores, TASKMESH_TLS_CLIENT_CA: pem })).message).toContain(
      "TLS is off",
    );
  });

  it("points at variables that are nearly ours", () => {
    const config = coordinatorConfig({ ...stores, TASKMESH_GRPC_ADRESS: "x", TASKMESH_TOKEN_FLE: "y", OTHER: "z" });
    expect(config.warnings).toEqual([
      "TASKMESH_GRPC_ADRESS is not a setting; did you mean TASKMESH_GRPC_ADDRESS?",
      "TASKMESH_TOKEN_FLE is not a setting; did you mean TASKMESH_TOKEN_FILE?",
    ]);
  });
});

describe("the configuration of a gateway", () => {
  it("listens on loopback and dials the coordinator with its own token unless told otherwise", () => {
    expect(gatewayConfig({})).toMatchObject({
      httpAddress: { host: "127.0.0.1", port: 7480 },
      coordinator: { addresses: [{ host: "127.0.0.1", port: 7400 }] },
    });
    const both = { TASKMESH_TOKEN: "token-of-the-gateway", TASKMESH_COORDINATOR_TOKEN: "token-of-the-mesh" };
    expect(gatewayConfig(both).coordinator.token).toBe("token-of-the-mesh");
    expect(gatewayConfig({ TASKMESH_TOKEN: "token-of-the-gateway" }).coordinator.token).toBe("token-of-the-gateway");
    expect(faultsOf(() => gatewayConfig({ TASKMESH_HTTP_ADDRESS: ":7480" })).message).toContain("nothing guards it");
  });

  it("turns TLS to coordinators on by their authority or a client certificate", () => {
    const pem = write("client.pem", "pem");
    expect(gatewayConfig({ TASKMESH_TLS_CA: pem }).coordinator.tls).toEqual({ ca: "pem" });
    const pair = { TASKMESH_COORDINATOR_TLS_CERT: pem, TASKMESH_COORDINATOR_TLS_KEY: pem };
    expect(gatewayConfig({ ...pair, TASKMESH_ADDRESS: "a:1,b:2" }).coordinator).toEqual({
      addresses: [
        { host: "a", port: 1 },
        { host: "b", port: 2 },
      ],
      tls: { cert: "pem", key: "pem" },
    });
    const half = { TASKMESH_COORDINATOR_TLS_KEY: pem };
    expect(faultsOf(() => gatewayConfig(half)).faults[0]?.variable).toBe("TASKMESH_COORDINATOR_TLS_CERT");
  });
});

describe("the configuration of a client", () => {
  it("shows the first token of the file", () => {
    const file = write("client-tokens", "new-token-of-ours\nold-token-of-ours\n");
    expect(clientConfig({ TASKMESH_TOKEN_FILE: file, TASKMESH_NAMESPACE: "team-a" })).toEqual({
      addresses: [{ host: "127.0.0.1", port: 7400 }],
      token: "new-token-of-ours",
      namespace: "team-a",
    });
  });

  it("refuses a file that it may not read", () => {
    const file = write("locked", "x");
    chmodSync(file, 0o000);
    // Root may read anything.
    if (process.getuid?.() === 0) expect(clientConfig({ TASKMESH_TLS_CA: file }).tls).toBeDefined();
    else expect(faultsOf(() => clientConfig({ TASKMESH_TLS_CA: file })).faults[0]?.variable).toBe("TASKMESH_TLS_CA");
    expect(faultsOf(() => clientConfig({ TASKMESH_TLS_CA: folder })).message).toContain("can't be read");
  });
});

describe("the help", () => {
  it("lists every setting with its form and default", () => {
    const help = settingsHelp(coordinatorSettings);
    for (const { variable } of Object.values(coordinatorSettings)) expect(help).toContain(`  ${variable}`);
    expect(help).toContain("TASKMESH_STOP_TIMEOUT_SECONDS\n      seconds, 1 to 3600; default 30");
    expect(help).toContain("DATABASE_URL (or DATABASE_URL_FILE)\n      postgres:// URL; required");
  });

  it("has defaults that pass their own checks", () => {
    for (const settings of Object.values(settingsTables)) {
      for (const setting of Object.values(settings)) {
        if (setting.fallback !== undefined)
          expect(setting.schema.safeParse(setting.fallback).success, setting.variable).toBe(true);
        expect(setting.doc, setting.variable).toMatch(/^[A-Z].*[.]$/s);
      }
    }
  });
});
