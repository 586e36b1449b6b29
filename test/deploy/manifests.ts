/** Rendered objects of the chart, and their check against the API of a version of Kubernetes. */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { parseAllDocuments } from "yaml";
import { helmBinary, kubernetesSchemas, type kubernetesVersions } from "../fixtures/tools.js";
import { customResources } from "./custom-resources.js";

const run = promisify(execFile);

/** The chart's folder. */
export const chart = join(import.meta.dirname, "..", "..", "deploy", "helm", "taskmesh");

/** An object of Kubernetes, as far as the tests look into it. */
export interface Manifest {
  apiVersion: string;
  kind: string;
  metadata: { name: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  spec?: unknown;
  data?: Record<string, string>;
}

/** Runs helm; resolves to what it printed, rejects with what it complained about. */
export async function helm(...args: string[]): Promise<string> {
  const { stdout, stderr } = await run(await helmBinary(), args, { maxBuffer: 64 << 20 });
  return stdout || stderr;
}

/** The objects that the chart renders with further arguments, such as `-f` and `--set`. */
export async function render(...args: string[]): Promise<Manifest[]> {
  const text = await helm("template", "mesh-1", chart, "--namespace", "mesh", ...args);
  const documents = parseAllDocuments(text, { uniqueKeys: true });
  for (const { errors } of documents) if (errors[0]) throw errors[0];
  return documents.flatMap((document) => (document.toJS() as Manifest | null) ?? []);
}

/** Checks objects against a version of Kubernetes; unknown fields are faults. */
export class ManifestCheck {
  readonly #ajv = new Ajv2020({ strict: false, allErrors: true, validateFormats: false, schemas: [] });
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
    const definitions = JSON.parse(readFileSync(join(folder, "_definitions.json"), "utf8")) as object;
    this.#ajv.addSchema(definitions, "/api/_definitions.json");
  }

  static async of(version: (typeof kubernetesVersions)[number]): Promise<ManifestCheck> {
    return new ManifestCheck(await kubernetesSchemas(version));
  }

  /** What is wrong with an object; a kind that nobody knows is a fault too. */
  faults(manifest: Manifest): string[] {
    const validate = this.#validator(manifest);
    const name = `${manifest.kind}/${manifest.metadata.name}`;
    if (validate(manifest)) return nulls(manifest).map((path) => `${name} ${path}: is null`);
    return (validate.errors ?? []).map(
      ({ instancePath, message, params }) => `${name} ${instancePath}: ${message} ${JSON.stringify(params)}`,
    );
  }

  #validator({ apiVersion, kind }: Manifest): ValidateFunction {
    const key = `/kind/${apiVersion} ${kind}`;
    const known = this.#ajv.getSchema(key);
    if (known) return known;
    const [version, group] = apiVersion.split("/").reverse();
    const file = [kind, group?.replace(/\..*$/, ""), version].filter(Boolean).join("-").toLowerCase();
    const schema =
      customResources[`${apiVersion} ${kind}`] ?? JSON.parse(readFileSync(join(this.#folder, `${file}.json`), "utf8"));
    this.#ajv.addSchema(schema as object, key);
    return this.#ajv.getSchema(key)!;
  }
}

/** The API takes a null for "not set", and so do the schemas: in a chart it is a value that was forgotten. */
function nulls(value: unknown, path = ""): string[] {
  if (value === null) return [path];
  if (typeof value !== "object") return [];
  return Object.entries(value as object).flatMap(([key, inner]) => nulls(inner, `${path}/${key}`));
}
