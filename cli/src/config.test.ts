import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { resolveConnection } from "./config.js";

const folder = mkdtempSync(join(tmpdir(), "taskmesh-config-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("the connection", () => {
  it("goes to the embedded mesh unless told otherwise", () => {
    expect(resolveConnection({}, {})).toEqual({ url: new URL("http://127.0.0.1:7480"), tls: {} });
  });

  it("takes options before the environment, and empty variables for absent", () => {
    const env = { TASKMESH_URL: "http://env:1", TASKMESH_NAMESPACE: "", TASKMESH_TOKEN: "from-env" };
    const { url, namespace, token } = resolveConnection({ url: "https://option:2/base", token: "from-option" }, env);
    expect([url.href, namespace, token]).toEqual(["https://option:2/base", undefined, "from-option"]);
    expect(resolveConnection({}, env).token).toBe("from-env");
  });

  it("reads tokens and certificates from files", () => {
    const path = join(folder, "secret");
    writeFileSync(path, "the-token\n");
    expect(resolveConnection({}, { TASKMESH_TOKEN_FILE: path, TASKMESH_TOKEN: "other" }).token).toBe("the-token");
    const options = { url: "https://h", tlsCa: path, tlsCert: path, tlsKey: path };
    expect(resolveConnection(options, {}).tls).toEqual({ ca: "the-token\n", cert: "the-token\n", key: "the-token\n" });
  });

  it("takes a host without a scheme for http", () => {
    expect(resolveConnection({ url: "localhost:7480" }, {}).url.href).toBe("http://localhost:7480/");
  });

  it.each([
    [{ url: "ftp://x" }, /not an http or https URL/],
    [{ url: "http://" }, /not an http or https URL/],
    [{ tokenFile: "/does/not/exist" }, /can't read the token file/],
    [{ url: "https://h", tlsCert: "/x" }, /needs both/],
  ])("refuses %j", (options, message) => expect(() => resolveConnection(options, {})).toThrow(message));
});
