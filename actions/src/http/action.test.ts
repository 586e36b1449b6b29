import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { brotliCompressSync, constants, deflateRawSync, deflateSync, gzipSync } from "node:zlib";
import { type RunActionOptions, runAction } from "@taskmesh/action-sdk/testing";
import { errorDetails } from "@taskmesh/proto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { builtinDescriptors } from "../gen/descriptors.js";
import {
  HttpStatusDetail,
  RedirectPolicy,
  RequestRequest,
  type RequestResponse,
} from "../gen/taskmesh/http/v1/http.js";
import { httpActions } from "./action.js";

type Respond = (request: IncomingMessage, response: ServerResponse, body: Buffer) => void;

/** A real server whose routes the tests write. */
class TestServer {
  readonly #routes = new Map<string, Respond>();
  readonly #server: Server;
  constructor() {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const path = new URL(request.url ?? "/", "http://x").pathname;
        const route = this.#routes.get(path);
        if (route) route(request, response, Buffer.concat(chunks));
        else response.writeHead(404, { "content-type": "text/plain" }).end("no such page");
      });
    });
  }
  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }
  get origin(): string {
    return `http://127.0.0.1:${this.port}`;
  }
  on(path: string, respond: Respond): string {
    this.#routes.set(path, respond);
    return `${this.origin}${path}`;
  }
  start(host = "127.0.0.1"): Promise<void> {
    return new Promise((done) => this.#server.listen(0, host, done));
  }
  stop(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((done) => this.#server.close(() => done()));
  }
}

const [request] = httpActions({ allow: ["127.0.0.1/32"] });
const send = (input: Partial<RequestRequest>, options: RunActionOptions = {}, action = request!) =>
  runAction(action, RequestRequest.fromPartial(input), { descriptors: builtinDescriptors, ...options });
const outputOf = async (...args: Parameters<typeof send>): Promise<RequestResponse> => {
  const { output, failure } = await send(...args);
  expect(failure).toBeUndefined();
  return output as RequestResponse;
};
const failureOf = async (...args: Parameters<typeof send>) => {
  const { failure } = await send(...args);
  return {
    reason: failure?.reason,
    retryable: failure?.retryable,
    message: failure?.message,
    details: failure?.details ?? [],
  };
};
const seconds = (value: number) => ({ seconds: BigInt(Math.floor(value)), nanos: Math.round((value % 1) * 1e9) });

let server: TestServer;
let other: TestServer;
beforeAll(async () => {
  server = new TestServer();
  other = new TestServer();
  await Promise.all([server.start(), other.start()]);
  server.on("/echo", (req, res, body) => {
    res.setHeader("content-type", "application/json");
    res.end(JSON.stringify({ method: req.method, url: req.url, headers: req.headers, body: body.toString("base64") }));
  });
});
afterAll(async () => {
  await Promise.all([server?.stop(), other?.stop()]);
});
const echoed = async (...[input, options]: Parameters<typeof send>) => {
  const { text } = await outputOf({ url: `${server.origin}/echo`, ...input }, options);
  const echo = JSON.parse(text) as { method: string; url: string; headers: Record<string, string>; body: string };
  return { ...echo, body: Buffer.from(echo.body, "base64").toString() };
};

describe("what is sent", () => {
  it("sends GET by default, with the query added and escaped", async () => {
    const echo = await echoed({ url: `${server.origin}/echo?a=1&b=%20#part`, query: { "q&": "x y/ü" } });
    expect(echo).toMatchObject({ method: "GET", url: "/echo?a=1&b=%20&q%26=x%20y%2F%C3%BC", body: "" });
    expect(echo.headers["idempotency-key"]).toBeUndefined();
  });

  it.each([
    ["text", { $case: "text", value: "grüß" }, "text/plain; charset=utf-8", "grüß"],
    ["json", { $case: "json", value: { a: [1, null, "ü"] } }, "application/json", '{"a":[1,null,"ü"]}'],
    [
      "form",
      { $case: "form", value: { fields: { a: "1 &", b: "ü" } } },
      "application/x-www-form-urlencoded",
      "a=1+%26&b=%C3%BC",
    ],
    ["binary", { $case: "binary", value: Buffer.from("\x01\x02") }, "application/octet-stream", "\x01\x02"],
  ] as const)(
    "sends a %s body with its content type, and the idempotency key of the step",
    async (_name, body, type, sent) => {
      const options = { runId: "run-1", stepId: "stép" };
      const echo = await echoed({ method: "post", body: body as NonNullable<RequestRequest["body"]> }, options);
      expect(echo).toMatchObject({ method: "POST", body: sent });
      expect(echo.headers).toMatchObject({ "content-type": type, "idempotency-key": "run-1/st%C3%A9p" });
    },
  );

  it("sends own headers instead of its defaults, the trace of the step, and credentials", async () => {
    const headers = { "Content-Type": "text/csv", "Idempotency-Key": "mine", "X-A": "b" };
    const body = { $case: "text", value: "x" } as const;
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const auth = { $case: "basic", value: { username: "me", password: "pässword" } } as const;
    const echo = await echoed({ method: "PUT", headers, body, auth }, { traceHeaders: { traceparent } });
    expect(echo.headers).toMatchObject({
      "content-type": "text/csv",
      "idempotency-key": "mine",
      "x-a": "b",
      traceparent,
    });
    expect(Buffer.from(echo.headers["authorization"]!.slice(6), "base64").toString()).toBe("me:pässword");
    const bearer = await echoed({ auth: { $case: "bearer", value: "t0ken" } });
    expect(bearer.headers["authorization"]).toBe("Bearer t0ken");
  });

  it.each([
    ["CR LF", { a: "b\r\nevil: 1" }],
    ["a lone LF", { a: "b\nc" }],
    ["NUL", { a: "b\0c" }],
    ["characters beyond Latin-1", { a: "→" }],
    ["a space in the name", { "a b": "c" }],
    ["CR LF in the name", { "a\r\nb": "c" }],
    ["an empty name", { "": "c" }],
    ["the same name twice", { A: "1", a: "2" }],
    ["Transfer-Encoding", { "Transfer-Encoding": "chunked" }],
    ["Content-Length", { "content-length": "3" }],
    ["Proxy-Authorization", { "Proxy-Authorization": "x" }],
    ["70 KiB", { a: "x".repeat(70_000) }],
  ])("refuses headers with %s", async (_what, headers) => {
    const failure = await failureOf({ url: `${server.origin}/echo`, headers: headers as Record<string, string> });
    expect(failure).toMatchObject({ reason: "HEADER_INVALID", retryable: false });
    expect(failure.message).not.toContain("evil");
  });

  it.each([
    ["METHOD_INVALID", { method: "CONNECT" }],
    ["METHOD_INVALID", { method: "TRACE" }],
    ["METHOD_INVALID", { method: "GET / HTTP" }],
    ["URL_INVALID", { url: "example.org" }],
    ["URL_INVALID", { url: "ftp://example.org/" }],
    ["URL_INVALID", { url: "file:///etc/passwd" }],
    ["URL_INVALID", { url: "data:text/plain,x" }],
    ["URL_INVALID", { url: "http://me:secret@example.org/" }],
    ["URL_INVALID", { url: "http://[::1" }],
    ["HEADER_INVALID", { auth: { $case: "bearer", value: "a b" } }],
    ["HEADER_INVALID", { auth: { $case: "basic", value: { username: "a:b", password: "c" } } }],
    ["HEADER_INVALID", { auth: { $case: "bearer", value: "a" }, headers: { authorization: "b" } }],
    ["INPUT_INVALID", { method: "POST", body: { $case: "json", value: { a: Number.NaN } } }],
    ["INPUT_INVALID", { url: "" }],
    ["INPUT_INVALID", { timeout: seconds(301) }],
    ["INPUT_INVALID", { maxBytes: 60n * 1024n * 1024n + 1n }],
  ])("refuses with %s (case %#)", async (reason, input) => {
    const failure = await failureOf({ url: server.origin, ...(input as Partial<RequestRequest>) });
    expect(failure).toMatchObject({ reason, retryable: false });
    expect(failure.message).not.toContain("secret");
  });
});

describe("what is answered", () => {
  it("gives status, joined headers, cookies, address and text", async () => {
    const url = server.on("/full", (_req, res) => {
      res.writeHead(
        201,
        [
          ["Content-Type", "Text/HTML; charset=utf-8"],
          ["X-A", "1"],
          ["X-A", "2"],
          ["Set-Cookie", "a=1; Path=/"],
          ["Set-Cookie", "b=2"],
        ].flat(),
      );
      res.end("<p>ü</p>");
    });
    const output = await outputOf({ url: `${url}?q=1#x` });
    expect(output).toMatchObject({
      status: 201,
      text: "<p>ü</p>",
      url: `${url}?q=1`,
      contentType: "text/html",
      sizeBytes: 9n,
    });
    expect(output.headers["x-a"]).toBe("1, 2");
    expect(output.setCookies).toEqual(["a=1; Path=/", "b=2"]);
    expect(output.binary).toHaveLength(0);
  });

  it.each([
    ["the charset of the header", "text/plain; charset=ISO-8859-1", Buffer.from("fa\u00e7ade", "latin1"), "façade"],
    ["windows-1251", 'text/html;charset="windows-1251"', Buffer.from([0xcf, 0xf0]), "Пр"],
    ["Shift_JIS", "text/html; charset=Shift_JIS", Buffer.from([0x93, 0xfa]), "日"],
    ["a byte order mark before the header", "text/plain; charset=latin1", Buffer.from("\ufeffü"), "ü"],
    ["UTF-16 by its mark", "text/plain", Buffer.from("\ufeffhi", "utf16le"), "hi"],
    [
      "the meta of a page",
      "text/html",
      Buffer.from('<meta charset="iso-8859-15">\xa4', "latin1"),
      '<meta charset="iso-8859-15">€',
    ],
    [
      "the XML declaration",
      "application/xml",
      Buffer.from('<?xml version="1.0" encoding="latin1"?>\xe9', "latin1"),
      '<?xml version="1.0" encoding="latin1"?>é',
    ],
    ["an unknown charset as UTF-8", "text/plain; charset=klingon", Buffer.from("ü"), "ü"],
    ["broken UTF-8", "application/json", Buffer.from([0x22, 0xff, 0x22]), '"\ufffd"'],
    ["no type at all, if it looks like text", "", Buffer.from("plain ü"), "plain ü"],
  ])("decodes by %s", async (_what, type, body, text) => {
    const url = server.on("/charset", (_req, res) => {
      if (type) res.setHeader("content-type", type);
      res.end(body);
    });
    expect((await outputOf({ url })).text).toBe(text);
  });

  it("keeps what is not text as bytes", async () => {
    const png = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 1, 2, 0xff]);
    const typed = server.on("/png", (_req, res) => res.writeHead(200, { "content-type": "image/png" }).end(png));
    const untyped = server.on("/untyped", (_req, res) => res.end(png));
    for (const url of [typed, untyped])
      expect(await outputOf({ url })).toMatchObject({ text: "", binary: png, sizeBytes: 8n });
  });

  it.each([
    ["gzip", gzipSync],
    ["x-gzip", gzipSync],
    ["deflate", deflateSync],
    ["deflate", deflateRawSync],
    ["br", brotliCompressSync],
    ["gzip, br", (body: Buffer) => brotliCompressSync(gzipSync(body))],
    ["identity", (body: Buffer) => body],
  ])("decompresses %s", async (encoding, compress) => {
    const page = "The quick brown fox. ".repeat(20_000);
    const url = server.on("/packed", (_req, res) => {
      res.writeHead(200, { "content-type": "text/plain", "content-encoding": encoding });
      res.end(compress(Buffer.from(page)));
    });
    const output = await outputOf({ url });
    expect(output.text === page).toBe(true);
    expect(output.sizeBytes).toBe(BigInt(page.length));
  });

  it("answers HEAD, 204 and 304 that name an encoding and have no body", async () => {
    const url = server.on("/empty", (req, res) => {
      const status = { HEAD: 200, GET: 204, POST: 304 }[req.method ?? ""] ?? 500;
      res
        .writeHead(status, { "content-encoding": "gzip", ...(status === 200 && { "content-length": "99999999999" }) })
        .end();
    });
    for (const method of ["HEAD", "GET", "POST"])
      expect(await outputOf({ url, method })).toMatchObject({ sizeBytes: 0n });
  });

  it("gives the status of a failure as a typed detail, and lets it pass when asked to", async () => {
    const url = server.on("/busy", (_req, res) => {
      res.writeHead(503, { "retry-after": "7", "content-type": "text/plain" }).end(`down ${"x".repeat(5_000)}`);
    });
    const failure = await failureOf({ url });
    expect(failure).toMatchObject({
      reason: "HTTP_STATUS",
      retryable: true,
      message: `127.0.0.1:${server.port} answered 503`,
    });
    const [status, retry] = failure.details;
    expect(status?.typeUrl).toBe("type.googleapis.com/taskmesh.http.v1.HttpStatusDetail");
    const detail = HttpStatusDetail.decode(status!.value);
    expect(detail).toMatchObject({ status: 503, retryAfter: seconds(7) });
    expect(detail.bodyExcerpt).toHaveLength(2_048);
    expect(errorDetails.RetryInfo.decode(retry!.value)).toEqual({ retryDelay: seconds(7) });
    expect(await outputOf({ url, failOnStatus: false })).toMatchObject({ status: 503 });
  });

  it.each([
    [400, false],
    [401, false],
    [404, false],
    [408, true],
    [410, false],
    [425, true],
    [429, true],
    [500, true],
    [502, true],
    [599, true],
  ])("fails on %i, retryable: %s, whatever its body", async (status, retryable) => {
    const url = server.on("/status", (_req, res) => {
      res.writeHead(status, { "content-encoding": "gzip", "content-type": "text/plain" }).end("not gzip");
    });
    expect(await failureOf({ url })).toMatchObject({ reason: "HTTP_STATUS", retryable });
  });
});

describe("redirects", () => {
  it("follows them, turns POST into GET on 302 and 303, and keeps it on 307 and 308", async () => {
    for (const [status, method] of [
      [301, "GET"],
      [302, "GET"],
      [303, "GET"],
      [307, "POST"],
      [308, "POST"],
    ] as const) {
      const url = server.on("/moved", (_req, res) => res.writeHead(status, { location: "./echo?from=ü" }).end("moved"));
      const output = await outputOf({ url, method: "POST", body: { $case: "text", value: "body" } });
      expect(output).toMatchObject({ status: 200, redirectCount: 1, url: `${server.origin}/echo?from=%C3%BC` });
      const echo = JSON.parse(output.text);
      expect([echo.method, Buffer.from(echo.body, "base64").toString()]).toEqual([
        method,
        method === "GET" ? "" : "body",
      ]);
      expect(echo.headers["content-type"]).toBe(method === "GET" ? undefined : "text/plain; charset=utf-8");
    }
  });

  it("shows no credentials and cookies to another origin, and other headers to it", async () => {
    other.on("/take", (req, res) =>
      res.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(req.headers)),
    );
    const url = server.on("/away", (_req, res) => res.writeHead(302, { location: `${other.origin}/take` }).end());
    const near = server.on("/near", (_req, res) => res.writeHead(302, { location: "/echo" }).end());
    const input = { auth: { $case: "bearer", value: "s3cret" }, headers: { Cookie: "sid=1", "X-Kept": "1" } } as const;
    const away = JSON.parse((await outputOf({ url, ...input })).text);
    expect([away.authorization, away.cookie, away["x-kept"]]).toEqual([undefined, undefined, "1"]);
    const same = JSON.parse((await outputOf({ url: near, ...input })).text).headers;
    expect([same.authorization, same.cookie]).toEqual(["Bearer s3cret", "sid=1"]);
  });

  it("follows five and fails at the sixth", async () => {
    const hop = (left: number) => (_req: IncomingMessage, res: ServerResponse) =>
      left === 0 ? res.end("there") : res.writeHead(302, { location: `/hop${left - 1}` }).end();
    for (let left = 0; left <= 6; left++) server.on(`/hop${left}`, hop(left));
    expect(await outputOf({ url: `${server.origin}/hop5` })).toMatchObject({ text: "there", redirectCount: 5 });
    expect(await failureOf({ url: `${server.origin}/hop6` })).toMatchObject({
      reason: "HTTP_REDIRECT",
      retryable: false,
    });
  });

  it("answers with the redirect itself when it may not follow", async () => {
    const url = server.on("/stay", (_req, res) => res.writeHead(302, { location: "/echo" }).end());
    const output = await outputOf({ url, redirects: RedirectPolicy.REDIRECT_POLICY_NONE });
    expect(output).toMatchObject({ status: 302, redirectCount: 0 });
    expect(output.headers["location"]).toBe("/echo");
  });

  it.each(["file:///etc/passwd", "gopher://x/", "http://u:p@127.0.0.1/", "http://["])(
    "does not follow to %s",
    async (location) => {
      const url = server.on("/odd", (_req, res) => res.writeHead(302, { location }).end());
      expect(await failureOf({ url })).toMatchObject({ reason: "HTTP_REDIRECT", retryable: false });
    },
  );
});

describe("egress", () => {
  const names: Record<string, string[]> = {};
  let lookups = 0;
  const [guarded] = httpActions({
    allow: ["public.test", "once.test"],
    resolve: async (hostname) => {
      lookups++;
      return (names[hostname] ?? []).map((address) => ({ address, family: address.includes(":") ? 6 : 4 }));
    },
  });

  it.each([
    "http://127.0.0.1/",
    "http://localhost/",
    "http://localhost./",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://①②⑦.0.0.1/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://169.254.169.254/latest/meta-data/",
    "https://10.0.0.1/",
    "http://inside.test/",
    "http://mixed.test/",
  ])("refuses %s", async (url) => {
    Object.assign(names, {
      localhost: ["127.0.0.1", "::1"],
      "localhost.": ["127.0.0.1"],
      "inside.test": ["10.0.0.7"],
      // One good address must not open the door to a bad one.
      "mixed.test": ["93.184.216.34", "127.0.0.1"],
    });
    expect(await failureOf({ url }, {}, guarded)).toMatchObject({ reason: "EGRESS_REFUSED", retryable: false });
  });

  it("refuses a redirect from a public place to a private one, by name or by address", async () => {
    names["public.test"] = ["127.0.0.1"];
    names["inside.test"] = ["127.0.0.1"];
    let reached = 0;
    other.on("/secret", (_req, res) => {
      reached++;
      res.end("secret");
    });
    for (const host of ["127.0.0.1", "inside.test", "0x7f.1", "[::ffff:127.0.0.1]"]) {
      server.on("/lure", (_req, res) => res.writeHead(302, { location: `http://${host}:${other.port}/secret` }).end());
      const failure = await failureOf({ url: `http://public.test:${server.port}/lure` }, {}, guarded);
      expect(failure, host).toMatchObject({ reason: "EGRESS_REFUSED", retryable: false });
    }
    expect(reached).toBe(0);
  });

  it("connects to the very address that it checked: a name that resolves differently a moment later gains nothing", async () => {
    const answers = [["93.184.216.34"], ["127.0.0.1"]];
    let asked = 0;
    const [rebound] = httpActions({
      resolve: async () => (answers[Math.min(asked++, 1)] ?? []).map((address) => ({ address, family: 4 as const })),
    });
    let reached = 0;
    const url = server.on("/rebind", (_req, res) => {
      reached++;
      res.end("rebound");
    });
    const rebinding = url.replace("127.0.0.1", "rebind.test");
    const stop = AbortSignal.timeout(500);
    // The first answer is public (and unreachable from here), the second is private.
    await send({ url: rebinding, timeout: seconds(0.4) }, { signal: stop }, rebound);
    expect(await failureOf({ url: rebinding }, {}, rebound)).toMatchObject({ reason: "EGRESS_REFUSED" });
    expect(reached).toBe(0);
  });

  it("resolves a name once for each connection", async () => {
    names["once.test"] = ["127.0.0.1"];
    const url = server.on("/once", (_req, res) => res.end("ok")).replace("127.0.0.1", "once.test");
    const before = lookups;
    expect(await outputOf({ url }, {}, guarded)).toMatchObject({ text: "ok" });
    expect(lookups - before).toBe(1);
  });

  it("says that a name does not exist as a failure to connect", async () => {
    const failure = await failureOf({ url: "http://nowhere.test/?token=s3cret" }, {}, guarded);
    expect(failure).toMatchObject({
      reason: "HTTP_CONNECT",
      retryable: true,
      message: "cannot connect to nowhere.test (ENOTFOUND)",
    });
  });
});

describe("bounds", () => {
  const quickBrotli = (body: Buffer) => brotliCompressSync(body, { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } });
  const pour = (res: ServerResponse, chunk: Buffer) => {
    const more = () => {
      while (!res.destroyed && res.write(chunk));
    };
    res.on("drain", more);
    more();
  };

  it("stops an endless body at the bound, told or not", async () => {
    const url = server.on("/endless", (_req, res) => pour(res, Buffer.alloc(64 * 1024, "x")));
    expect(await failureOf({ url })).toMatchObject({ reason: "HTTP_TOO_LARGE", retryable: false });
    const told = server.on("/told", (_req, res) => {
      res.writeHead(200, { "content-length": String(9 * 1024 * 1024) });
      pour(res, Buffer.alloc(64 * 1024, "x"));
    });
    expect(await failureOf({ url: told })).toMatchObject({ reason: "HTTP_TOO_LARGE", retryable: false });
  });

  it("accepts a body of exactly the bound and refuses one byte more", async () => {
    for (const [size, ok] of [
      [1_000, true],
      [1_001, false],
    ] as const) {
      for (const encoding of ["identity", "gzip"]) {
        const url = server.on("/exact", (_req, res) => {
          const body = Buffer.alloc(size, "x");
          res.writeHead(200, { "content-encoding": encoding }).end(encoding === "gzip" ? gzipSync(body) : body);
        });
        const { output, failure } = await send({ url, maxBytes: 1_000n });
        expect([output?.sizeBytes, failure?.reason]).toEqual(ok ? [1_000n, undefined] : [undefined, "HTTP_TOO_LARGE"]);
      }
    }
  });

  it.each([
    ["gzip", gzipSync],
    ["br", quickBrotli],
    ["gzip, gzip", (body: Buffer) => gzipSync(gzipSync(body))],
  ])("stops a bomb of %s without unfolding it", async (encoding, compress) => {
    const bomb = compress(Buffer.alloc(96 * 1024 * 1024));
    const url = server.on("/bomb", (_req, res) => res.writeHead(200, { "content-encoding": encoding }).end(bomb));
    const before = process.memoryUsage().arrayBuffers;
    expect(await failureOf({ url })).toMatchObject({ reason: "HTTP_TOO_LARGE", retryable: false });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(48 * 1024 * 1024);
  });

  it("refuses more than two layers of compression, a torn one, and garbage", async () => {
    const bodies: [string, Buffer][] = [
      ["gzip, gzip, gzip", gzipSync("x")],
      ["gzip", gzipSync(Buffer.alloc(10_000, "abc")).subarray(0, 30)],
      ["br", Buffer.from("garbage")],
    ];
    for (const [encoding, body] of bodies) {
      const url = server.on("/torn", (_req, res) => res.writeHead(200, { "content-encoding": encoding }).end(body));
      expect(await failureOf({ url }), encoding).toMatchObject({ reason: "HTTP_PROTOCOL", retryable: true });
    }
  });

  it("ends at its timeout: no headers, a slow body, a slow bomb", async () => {
    const silent = server.on("/silent", () => undefined);
    const slow = server.on("/slow", (_req, res) => {
      const timer = setInterval(() => res.write("x"), 20);
      res.on("close", () => clearInterval(timer));
    });
    const slowGzip = server.on("/slow-gzip", (_req, res) => {
      res.writeHead(200, { "content-encoding": "gzip" });
      res.write(gzipSync(Buffer.alloc(1_000)).subarray(0, 15));
    });
    for (const url of [silent, slow, slowGzip]) {
      const failure = await failureOf({ url, timeout: seconds(0.3) });
      expect(failure).toMatchObject({ reason: "HTTP_TIMEOUT", retryable: true });
    }
  });

  it("stops when the run is cancelled", async () => {
    const stop = new AbortController();
    const url = server.on("/hang", () => stop.abort());
    expect(await send({ url }, { signal: stop.signal })).toMatchObject({ cancelled: {} });
  });

  it("refuses a header block that is too large", async () => {
    const url = server.on("/headers", (_req, res) => {
      for (let index = 0; index < 100; index++) res.setHeader(`x-${index}`, "y".repeat(1_000));
      res.end();
    });
    expect(await failureOf({ url })).toMatchObject({ reason: "HTTP_TOO_LARGE", retryable: false });
  });

  it.each([
    ["a body that breaks off", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"],
    ["what is not HTTP", "SSH-2.0-OpenSSH_9.2\r\n"],
    ["nothing", ""],
  ])("reports %s as retryable", async (_what, answer) => {
    const raw = createTcpServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => socket.end(answer));
    });
    await new Promise<void>((done) => raw.listen(0, "127.0.0.1", done));
    const url = `http://127.0.0.1:${(raw.address() as AddressInfo).port}/`;
    expect(await failureOf({ url })).toMatchObject({ reason: "HTTP_PROTOCOL", retryable: true });
    await new Promise((done) => raw.close(done));
  });

  it("reports a refused connection as retryable", async () => {
    const gone = createTcpServer();
    await new Promise<void>((done) => gone.listen(0, "127.0.0.1", done));
    const { port } = gone.address() as AddressInfo;
    await new Promise((done) => gone.close(done));
    expect(await failureOf({ url: `http://127.0.0.1:${port}/` })).toMatchObject({
      reason: "HTTP_CONNECT",
      retryable: true,
    });
  });
});
