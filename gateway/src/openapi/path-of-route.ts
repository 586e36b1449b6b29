/**
 * Paths of google.api.http as paths of OpenAPI.
 *
 * OpenAPI has no patterns in its parameters, and its clients escape slashes. So a variable such as `{name=shelves/*}` becomes
 * `shelves/{shelves}`: a parameter for each wildcard. Paths that match the same requests are one path there, whatever their
 * variables are called; so the first route names the parameters of a shape.
 */
import type { JsonObject } from "@bufbuild/protobuf";
import type { HttpBinding, PathVariable } from "@taskmesh/runtime";
import { constraintsOf } from "./constraints.js";
import { type SchemaScope, valueSchema } from "./schema.js";

export interface OpenApiPath {
  /** "/v1/shelves/{shelves}:read" */
  path: string;
  /** Names of the parameters, in order. */
  names: string[];
}

/** The path of a shape that no route had before. */
export function pathOfRoute({ template, variables }: HttpBinding): OpenApiPath {
  const names: string[] = [];
  const parts = template.segments.map((segment, index) => {
    if (segment.kind === "literal") return encodeURIComponent(segment.text);
    const variable = variableAt(variables, index);
    const before = variable === undefined || index === variable.from ? undefined : template.segments[index - 1];
    const wanted = before?.kind === "literal" ? before.text : (variable?.fieldPath.join(".") ?? "segment");
    const name = unused(wanted.replace(/[^A-Za-z0-9._-]/g, "_"), names);
    names.push(name);
    return `{${name}}`;
  });
  const verb = template.verb === "" ? "" : `:${encodeURIComponent(template.verb)}`;
  return { path: `/${parts.join("/")}${verb}`, names };
}

function unused(name: string, names: readonly string[]): string {
  for (let count = 1; ; count++) {
    const candidate = count === 1 ? name : `${name}_${count}`;
    if (!names.includes(candidate)) return candidate;
  }
}

const variableAt = (variables: readonly PathVariable[], index: number): PathVariable | undefined =>
  variables.find(({ from, to }) => from <= index && index < to);

/** The parameters of a route under the names of its path. */
export function pathParametersOf(binding: HttpBinding, names: readonly string[], scope: SchemaScope): JsonObject[] {
  const { template, variables } = binding;
  let at = 0;
  return template.segments.flatMap((segment, index) => {
    if (segment.kind === "literal") return [];
    const name = names[at++] ?? "";
    const variable = variableAt(variables, index);
    const field = variable?.fields.at(-1);
    const isWhole = variable !== undefined && variable.to - variable.from === 1;
    const schema = isWhole && field ? valueSchema(field, constraintsOf(field).item, scope) : { type: "string" };
    const pattern = variable === undefined ? "" : segmentsText(binding, variable);
    const words = [
      variable === undefined
        ? ""
        : isWhole
          ? ""
          : `Part of \`${variable.fieldPath.join(".")}\`, which is \`${pattern}\`.`,
      segment.kind === "rest" ? "May hold slashes." : "",
    ].filter((part) => part !== "");
    const description = words.length === 0 ? {} : { description: words.join(" ") };
    return [{ name, in: "path", required: true, ...description, schema }];
  });
}

function segmentsText({ template }: HttpBinding, { from, to }: PathVariable): string {
  const texts = template.segments.slice(from, to);
  return texts.map((one) => (one.kind === "literal" ? one.text : one.kind === "one" ? "*" : "**")).join("/");
}
