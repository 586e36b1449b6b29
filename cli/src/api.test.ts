import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { type Api, createApi, methodPath, urlOf } from "./api.js";
import { CliError, exitCode } from "./exit.js";

let server: Server | undefined;
afterEach(async () => {
  server?.closeAllConnections();
  await new Promise((resolve) => (server ? server.close(resolve) : resolve(undefined)));
  server = undefined;
});

async function serve(listener: RequestListener): Promise<Api> {
  const started = createServer(listener);
  server = started;
  await new Promise<void>((resolve) => started.listen(0, "127.0.0.1", resolve));
  const { port } = started.address() as AddressInfo;
  return createApi({ url: new URL(`http://127.0.0.1:${port}`), tls: {}, token: "the-token", namespace: "team-a" });
}

const answer =
  (status: number, body: unknown): RequestListener =>
  (_request, response) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(typeof body === "string" ? body : JSON.stringify(body));
  };

const failure = async (call: Promise<unknown>): Promise<CliError> => {
  const error = await call.then(() => undefined).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(CliError);
  return error as CliError;
};

describe("calls of the REST API", () => {
  it("sends the namespace, the token and JSON", async () => {
    let seen = {};
    const api = await serve((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const { url, headers } = request;
        seen = {
          url,
          auth: headers.authorization,
          type: headers["content-type"],
          body: Buffer.concat(chunks).toString(),
        };
        response.end('{"runId":"r"}');
      });
    });
    const query = { label: ["a=1", "b=ü"], method: undefined };
    expect(await api.call("POST", "/api/v1/runs", { body: { n: 1 }, query })).toEqual({ runId: "r" });
    expect(seen).toEqual({
      url: "/api/v1/runs?namespace=team-a&label=a%3D1&label=b%3D%C3%BC",
      auth: "Bearer the-token",
      type: "application/json",
      body: '{"n":1}',
    });
  });

  it("sends prepared JSON untouched, so that large integers stay what they are", async () => {
    let seen = "";
    const api = await serve((request, response) => {
      request.on("data", (chunk: Buffer) => (seen += chunk.toString()));
      request.on("end", () => response.end("{}"));
    });
    await api.call("POST", "/x", { bodyText: '{"n":9007199254740993}' });
    expect(seen).toBe('{"n":9007199254740993}');
  });

  it.each([
    [400, exitCode.refused],
    [401, exitCode.refused],
    [403, exitCode.refused],
    [404, exitCode.notFound],
    [409, exitCode.refused],
    [500, exitCode.refused],
    [502, exitCode.unreachable],
    [503, exitCode.unreachable],
    [504, exitCode.unreachable],
  ])("ends with the right code when the answer is %i", async (status, code) => {
    const api = await serve(answer(status, { detail: "so it is", reason: "SOME_REASON" }));
    const error = await failure(api.call("GET", "/x"));
    expect([error.code, error.message]).toEqual([code, "so it is"]);
    expect(error.problem).toMatchObject({ reason: "SOME_REASON" });
  });

  it("names the fields of an invalid request below the sentence", async () => {
    const errors = [{ field: "input.url", message: "must not be empty\u001b[2J" }];
    const api = await serve(answer(400, { detail: "the input is invalid", errors }));
    const error = await failure(api.call("GET", "/x"));
    expect(error.message).toBe("the input is invalid\n  input.url: must not be empty\\x1b[2J");
  });

  it("teaches how to start a mesh when nothing listens", async () => {
    const api = await serve(answer(200, {}));
    server?.close();
    const error = await failure(api.call("GET", "/x"));
    expect(error.code).toBe(exitCode.unreachable);
    expect(error.hint).toContain("npx taskmesh dev");
  });

  it("says so when something else answers at the address", async () => {
    const api = await serve(answer(200, "<html>"));
    expect((await failure(api.call("GET", "/x"))).message).toContain("does not speak the Taskmesh API");
  });

  it("keeps a path in the base URL", () => {
    const connection = { url: new URL("https://host/mesh/"), tls: {} };
    expect(urlOf(connection, "/api/v1/runs").href).toBe("https://host/mesh/api/v1/runs");
  });

  it("takes full method names only", () => {
    expect(methodPath("a.v1.B/C d")).toBe("a.v1.B/C%20d");
    expect(methodPath("/a.v1.B/C")).toBe("a.v1.B/C");
    for (const name of ["", "a.v1.B", "a/b/c", "/"]) expect(() => methodPath(name)).toThrow(/full method name/);
  });
});

describe("event streams", () => {
  const collect = async (api: Api) => {
    const ids = [];
    for await (const event of api.events("/events")) ids.push(event.id);
    return ids;
  };

  it("continue behind the last event seen after the connection breaks, as often as it does", async () => {
    const asked: (string | undefined)[] = [];
    const api = await serve((request, response) => {
      const after = request.headers["last-event-id"] as string | undefined;
      asked.push(after);
      response.writeHead(200, { "content-type": "text/event-stream" });
      const next = Number(after ?? 0) + 1;
      response.write(`id: ${next}\ndata: {}\n\n`, () => (next < 4 ? request.socket.destroy() : response.end()));
    });
    expect(await collect(api)).toEqual(["1", "2", "3", "4"]);
    expect(asked).toEqual([undefined, "1", "2", "3"]);
  });

  it("end with the refusal of the mesh", async () => {
    const api = await serve(answer(404, { detail: "no such run" }));
    expect(await failure(collect(api))).toMatchObject({ code: exitCode.notFound, message: "no such run" });
  });
});
