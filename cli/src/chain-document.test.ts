import { parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { chainDocumentOf } from "./chain-document.js";

const source = `contract:
  name: acme.pages.v1.Pages/Check
  input: { url: string }
  output: { words: int32 }
run_timeout: 600s
steps:
  - id: fetch
    call: taskmesh.http.v1.HttpActions/Request
    input: { url: input.url, max_bytes: 100 }
    retry: { exponential: { initial: 1s, cap: 30s }, max_attempts: 5 }
output: { words: "1" }
`;

describe("a stored chain", () => {
  it("is shown as a document that says the same", () => {
    const { json } = parseChainDocument(source);
    // As the gateway answers: fields without a value are there too.
    const stored = { ...json, description: "", onUnhandled: "ON_UNHANDLED_UNSPECIFIED" };
    const shown = chainDocumentOf(stored as never);
    expect(shown).toContain("run_timeout: 10m");
    expect(parseChainDocument(shown)).toMatchObject({ json, problems: [] });
  });
});
