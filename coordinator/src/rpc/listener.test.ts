import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  Client,
  credentials,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  type ServiceDefinition,
} from "@grpc/grpc-js";
import {
  type ChannelConfig,
  createChannel,
  createLogger,
  fromServiceError,
  type ServerTls,
  StatusError,
  setLogLevel,
  status,
  statusError,
  type TokenSource,
  unaryCall,
} from "@taskmesh/runtime";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { bidi, type CallContext, clientStream, serverStream, unary } from "./calls.js";
import { createHealth, type Health } from "./health.js";
import { createListener, type Listener, requestBytesMax } from "./listener.js";

const silent = createLogger("test", { level: "silent" });

/** Methods over raw bytes; "bad" can't be decoded. */
const method = (path: string, requestStream = false, responseStream = false): MethodDefinition<Buffer, Buffer> => ({
  path,
  requestStream,
  responseStream,
  requestSerialize: (value) => value,
  requestDeserialize(bytes) {
    if (bytes.toString() === "bad") throw new Error("no such wire type");
    return bytes;
  },
  responseSerialize: (value) => value,
  responseDeserialize: (bytes) => bytes,
});

const definition = {
  echo: method("/test.v1.Test/Echo"),
  list: method("/test.v1.Test/List", false, true),
  join: method("/test.v1.Test/Join", true, false),
  talk: method("/test.v1.Test/Talk", true, true),
} as const;

interface Handlers {
  echo?: (request: Buffer, context: CallContext) => Promise<Buffer>;
  list?: Parameters<typeof serverStream<Buffer, Buffer>>[0];
  talk?: Parameters<typeof bidi<Buffer, Buffer>>[0];
}

let listener: Listener;
let health: Health;
const clients: Client[] = [];

async function serve(
  handlers: Handlers,
  options: { tokens?: TokenSource; tls?: ServerTls; graceMs?: number } = {},
): Promise<Listener> {
  health = createHealth(["test.v1.Test"]);
  health.setDatabase(true);
  listener = createListener({
    address: { host: "127.0.0.1", port: 0 },
    tokens: options.tokens ?? { tokens: [] },
    tls: options.tls,
    log: silent,
    graceMs: options.graceMs,
    services(made) {
      health.addTo(made.server);
      made.addService(definition as unknown as ServiceDefinition, {
        echo: unary(handlers.echo ?? (async (request: Buffer) => request)) as handleUnaryCall<Buffer, Buffer>,
        list: serverStream(handlers.list ?? (async () => {})),
        join: clientStream(async (requests: AsyncIterable<Buffer>) => {
          const all: Buffer[] = [];
          for await (const one of requests) all.push(one);
          return Buffer.concat(all);
        }),
        talk: bidi(
          handlers.talk ??
            (async (requests, send) => {
              for await (const one of requests) await send(one);
            }),
        ),
      });
    },
  });
  await listener.start();
  return listener;
}

function dial(config: Partial<ChannelConfig> = {}): Client {
  const channel = createChannel({ addresses: [listener.address], ...config });
  const client = new Client(channel.target, channel.credentials, channel.options);
  clients.push(client);
  return client;
}

const echo = (client: Client, request: Buffer | string, options: Parameters<typeof unaryCall>[3] = {}) =>
  unaryCall<Buffer, Buffer>(
    client,
    (message, metadata, callOptions, callback) =>
      client.makeUnaryRequest(
        definition.echo.path,
        (value: Buffer) => value,
        (bytes: Buffer) => bytes,
        message,
        metadata,
        callOptions,
        (error, response) => callback(error, response as Buffer),
      ),
    Buffer.from(request),
    { deadlineMs: 20_000, ...options },
  );

const failure = async (promise: Promise<unknown>): Promise<StatusError> => {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(StatusError);
  return error as StatusError;
};

const healthStatus = (client: Client, service = ""): Promise<string> =>
  new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      "/grpc.health.v1.Health/Check",
      () => Buffer.from(service === "" ? [] : [0x0a, service.length, ...Buffer.from(service)]),
      (bytes: Buffer) => ["UNKNOWN", "SERVING", "NOT_SERVING"][bytes[1] ?? 0]!,
      {},
      (error, answer) => (error ? reject(error) : resolve(answer!)),
    );
  });

beforeAll(() => setLogLevel("silent"));
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await listener?.stop();
});

describe("calls", () => {
  it("carries all four kinds", async () => {
    await serve({
      list: async (request, send) => {
        for (const letter of request.toString()) await send(Buffer.from(letter));
      },
    });
    const client = dial();
    expect((await echo(client, "hello")).toString()).toBe("hello");

    const listed = client.makeServerStreamRequest(definition.list.path, (b: Buffer) => b, String, Buffer.from("abc"));
    const letters: string[] = [];
    for await (const letter of listed) letters.push(letter as string);
    expect(letters).toEqual(["a", "b", "c"]);

    const joined = await new Promise((resolve, reject) => {
      const call = client.makeClientStreamRequest(
        definition.join.path,
        (b: Buffer) => b,
        String,
        (error, response) => (error ? reject(error) : resolve(response)),
      );
      call.write(Buffer.from("to"));
      call.end(Buffer.from("gether"));
    });
    expect(joined).toBe("together");

    const talk = client.makeBidiStreamRequest(definition.talk.path, (b: Buffer) => b, String);
    talk.write(Buffer.from("ping"));
    expect(await new Promise((resolve) => talk.once("data", resolve))).toBe("ping");
    talk.end();
    expect(await new Promise((resolve) => talk.once("status", (ended) => resolve(ended.code)))).toBe(status.OK);
  });

  it("hands a StatusError over whole", async () => {
    await serve({
      echo: async () => {
        throw statusError({
          reason: "INPUT_INVALID",
          message: "the input breaks its contract",
          metadata: { method: "a.B/C" },
          fieldViolations: [{ field: "input.age", description: "must be at least 18", reason: "GTE" }],
          retryAfterMs: 1_500,
        });
      },
    });
    const error = await failure(echo(dial(), "x"));
    expect(error).toMatchObject({
      code: status.INVALID_ARGUMENT,
      reason: "INPUT_INVALID",
      message: "the input breaks its contract",
      metadata: { method: "a.B/C" },
      fieldViolations: [{ field: "input.age", description: "must be at least 18", reason: "GTE" }],
      retryAfterMs: 1_500,
    });
  });

  it("hides what went wrong inside, and names a trace id", async () => {
    await serve({
      echo: async () => {
        throw new Error("column secret_column does not exist");
      },
    });
    const error = await failure(echo(dial(), "x"));
    expect(error).toMatchObject({ code: status.INTERNAL, reason: "INTERNAL" });
    expect(error.message).toMatch(/^internal error, trace id [\w-]{16,}$/);
  });

  it("says UNAVAILABLE when the database can't be reached", async () => {
    const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" });
    await serve({
      echo: async () => {
        throw new Error("Failed query", { cause: refused });
      },
    });
    const error = await failure(echo(dial(), "x"));
    expect(error).toMatchObject({ code: status.UNAVAILABLE, reason: "DATABASE_UNAVAILABLE", retryable: true });
  });

  it("blames the caller for bytes that are no message", async () => {
    await serve({});
    expect(await failure(echo(dial(), "bad"))).toMatchObject({
      code: status.INVALID_ARGUMENT,
      reason: "ARGUMENT_INVALID",
    });
  });

  it("takes a request of exactly the bound and refuses one byte more", async () => {
    await serve({ echo: async (request) => Buffer.from(String(request.length)) });
    const client = dial();
    expect((await echo(client, Buffer.alloc(requestBytesMax))).toString()).toBe(String(requestBytesMax));
    expect(await failure(echo(client, Buffer.alloc(requestBytesMax + 1)))).toMatchObject({
      code: status.RESOURCE_EXHAUSTED,
      reason: "MESSAGE_TOO_LARGE",
    });
  });

  it("tells the handler when the caller gives up or runs out of time", async () => {
    const seen: string[] = [];
    await serve({
      echo: (request, { signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            seen.push(request.toString());
            reject(new Error("too late to matter"));
          });
        }),
    });
    const client = dial();
    const abort = new AbortController();
    const given = failure(echo(client, "cancelled", { signal: abort.signal }));
    const late = failure(echo(client, "expired", { deadlineMs: 300 }));
    expect(await late).toMatchObject({ reason: "DEADLINE_EXCEEDED" });
    abort.abort();
    expect(await given).toMatchObject({ reason: "CALL_CANCELLED" });
    await expect.poll(() => seen.sort(), { timeout: 10_000 }).toEqual(["cancelled", "expired"]);
  });

  it("keeps memory flat when a caller reads slowly", async () => {
    let sent = 0;
    await serve({
      list: async (_request, send, { signal }) => {
        const chunk = Buffer.alloc(256 * 1024);
        while (!signal.aborted && sent < 4_000) {
          await send(chunk);
          sent += 1;
        }
      },
    });
    const call = dial().makeServerStreamRequest(
      definition.list.path,
      (b: Buffer) => b,
      (b) => b,
      Buffer.from("x"),
    );
    call.on("error", () => {});
    await new Promise((resolve) => call.once("data", resolve));
    call.pause();
    // Once flow control holds, the count stands still; without it, all 4,000 (1 GB) would be queued.
    let before = -1;
    await expect
      .poll(
        () => {
          const still = sent === before;
          before = sent;
          return still;
        },
        { timeout: 20_000, interval: 500 },
      )
      .toBe(true);
    expect(sent).toBeLessThan(100);
    call.cancel();
  });

  it("survives a peer that sends garbage instead of HTTP/2", async () => {
    await serve({});
    const { host, port } = listener.address;
    await new Promise<void>((resolve) => {
      const socket = connect(port, host, () => socket.write(Buffer.alloc(100_000, 0xff)));
      socket.on("error", () => {});
      socket.on("close", () => resolve());
      socket.resume();
    });
    expect((await echo(dial(), "still here")).toString()).toBe("still here");
  });
});

describe("drain and stop", () => {
  it("refuses new calls while it drains, lets those in flight end, and shows NOT_SERVING to the last", async () => {
    let release: () => void = () => {};
    const entered = new Promise<void>((arrived) => {
      void serve({
        echo: (request) =>
          new Promise((resolve) => {
            release = () => resolve(request);
            arrived();
          }),
      });
    });
    await expect.poll(() => listener?.running, { timeout: 10_000 }).toBe(true);
    const client = dial();
    const inFlight = echo(client, "first");
    await entered;
    listener.drain();
    health.drain();
    expect(await failure(echo(client, "second"))).toMatchObject({ code: status.UNAVAILABLE, reason: "DRAINING" });
    expect(await healthStatus(client)).toBe("NOT_SERVING");
    release();
    expect((await inFlight).toString()).toBe("first");
  });

  it("cuts a stream that does not end, after the grace", async () => {
    await serve({ talk: () => new Promise(() => {}) }, { graceMs: 200 });
    const call = dial().makeBidiStreamRequest(
      definition.talk.path,
      (b: Buffer) => b,
      (b) => b,
    );
    const ended = new Promise<StatusError>((resolve) => call.on("error", (error) => resolve(fromServiceError(error))));
    call.write(Buffer.from("open"));
    await expect.poll(() => call.getPeer(), { timeout: 10_000 }).toMatch(/127\.0\.0\.1/);
    await listener.stop();
    expect([status.UNAVAILABLE, status.CANCELLED]).toContain((await ended).code);
  });

  it("can be started again on the same port", async () => {
    await serve({});
    const { port } = listener.address;
    await listener.stop();
    await listener.start();
    expect(port).toBeGreaterThan(0);
    expect((await echo(dial(), "again")).toString()).toBe("again");
  });

  it("says which address can't be bound", async () => {
    await serve({});
    const second = createListener({ address: listener.address, tokens: { tokens: [] }, log: silent, services() {} });
    await expect(second.start()).rejects.toThrow(`can't listen on 127.0.0.1:${listener.address.port}`);
  });
});

describe("credentials", () => {
  let folder: string;
  const path = (name: string): string => join(folder, name);
  const pem = (name: string): string => readFileSync(path(name), "utf8");
  const openssl = (...args: string[]): void => void execFileSync("openssl", args, { cwd: folder, stdio: "ignore" });

  const issue = (name: string, ca: string, extension: string): void => {
    writeFileSync(path(`${name}.ext`), extension);
    openssl(
      "req",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-subj",
      `/CN=${name}`,
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.csr`,
    );
    openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-CA",
      `${ca}.pem`,
      "-CAkey",
      `${ca}.key`,
      "-CAcreateserial",
      "-days",
      "2",
      "-extfile",
      `${name}.ext`,
      "-out",
      `${name}.pem`,
    );
  };

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "taskmesh-tls-"));
    for (const ca of ["ca", "stranger-ca"]) {
      openssl(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        `/CN=${ca}`,
        "-keyout",
        `${ca}.key`,
        "-out",
        `${ca}.pem`,
      );
    }
    issue("server", "ca", "subjectAltName=IP:127.0.0.1,DNS:localhost");
    issue("worker", "ca", "extendedKeyUsage=clientAuth");
    issue("stranger", "stranger-ca", "extendedKeyUsage=clientAuth");
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const token = "correct-horse-battery-staple";

  it("asks for a token on every call but health", async () => {
    await serve({}, { tokens: { tokens: [token, "another-token-of-some-length"] } });
    const bare = dial();
    expect(await failure(echo(bare, "x"))).toMatchObject({ code: status.UNAUTHENTICATED, reason: "TOKEN_MISSING" });
    expect(await failure(echo(dial({ token: `${token}r` }), "x"))).toMatchObject({ reason: "TOKEN_INVALID" });
    expect(await healthStatus(bare, "test.v1.Test")).toBe("SERVING");
    expect((await echo(dial({ token }), "in")).toString()).toBe("in");
    expect((await echo(dial({ token: "another-token-of-some-length" }), "in")).toString()).toBe("in");
    const unknownPath = new Promise((resolve) => {
      bare.makeUnaryRequest(
        "/test.v1.Test/Nothing",
        (b: Buffer) => b,
        (b) => b,
        Buffer.from(""),
        new Metadata(),
        (error) => resolve(error?.code),
      );
    });
    expect(await unknownPath).toBe(status.UNIMPLEMENTED);
  });

  it("refuses a stream without a token before its handler runs", async () => {
    let entered = 0;
    const talk = async (): Promise<void> => {
      entered += 1;
    };
    await serve({ talk }, { tokens: { tokens: [token] } });
    const call = dial().makeBidiStreamRequest(
      definition.talk.path,
      (b: Buffer) => b,
      (b) => b,
    );
    call.write(Buffer.from("x"));
    const error = await new Promise<StatusError>((resolve) =>
      call.on("error", (thrown) => resolve(fromServiceError(thrown))),
    );
    expect(error.reason).toBe("TOKEN_MISSING");
    expect(entered).toBe(0);
  });

  it("speaks TLS with a token", async () => {
    await serve({}, { tls: { cert: pem("server.pem"), key: pem("server.key") }, tokens: { tokens: [token] } });
    const tls = { ca: pem("ca.pem") };
    expect((await echo(dial({ tls, token }), "private")).toString()).toBe("private");
    expect(await failure(echo(dial({ tls }), "x"))).toMatchObject({ reason: "TOKEN_MISSING" });
    expect((await failure(echo(dial({ tls: { ca: pem("stranger-ca.pem") }, token }), "x"))).code).toBe(
      status.UNAVAILABLE,
    );
    const plain = new Client(`127.0.0.1:${listener.address.port}`, credentials.createInsecure());
    clients.push(plain);
    expect((await failure(echo(plain, "x"))).code).toBe(status.UNAVAILABLE);
  });

  it("takes a client certificate of its authority in place of a token, and nobody else's", async () => {
    const tls = { cert: pem("server.pem"), key: pem("server.key"), clientCa: pem("ca.pem") };
    await serve({}, { tls, tokens: { tokens: [token] } });
    const own = { ca: pem("ca.pem"), cert: pem("worker.pem"), key: pem("worker.key") };
    expect((await echo(dial({ tls: own }), "mutual")).toString()).toBe("mutual");
    const strange = { ca: pem("ca.pem"), cert: pem("stranger.pem"), key: pem("stranger.key") };
    expect((await failure(echo(dial({ tls: strange, token }), "x"))).code).toBe(status.UNAVAILABLE);
    expect((await failure(echo(dial({ tls: { ca: pem("ca.pem") }, token }), "x"))).code).toBe(status.UNAVAILABLE);
  });

  it("follows the token file", async () => {
    const file = path("tokens");
    writeFileSync(file, `# old\n${token}\n`);
    let now = 0;
    const { createTokenCheck } = await import("@taskmesh/runtime");
    const check = createTokenCheck({ tokens: [token], file }, () => now);
    writeFileSync(file, "# rotated\nthe-next-token-of-ours\n");
    expect(check.accepts(token)).toBe(true);
    now += 5_000;
    expect(check.accepts(token)).toBe(false);
    expect(check.accepts("the-next-token-of-ours")).toBe(true);
    rmSync(file);
    now += 5_000;
    expect(check.accepts("the-next-token-of-ours")).toBe(true);
  });

  it("refuses a public address that nothing guards", () => {
    const open = () =>
      createListener({ address: { host: "0.0.0.0", port: 0 }, tokens: { tokens: [] }, log: silent, services() {} });
    expect(open).toThrow("nothing guards it");
  });
});
