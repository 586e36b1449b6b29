/**
 * Finds the route of a path among templates of google.api.http.
 *
 * T1. A verb behind a colon counts more than none; then, from the left, a literal more than `*`, and `*` more than `**`. So what is found
 *     depends on the templates alone and never on their order.
 * T2. A segment of its own is never empty: `/v1/things/` is not `/v1/things/*`.
 * T3. A search visits each node once at most: its cost is bounded by the templates, whatever the path.
 */
import type { PathTemplate, TemplateVariable } from "@taskmesh/runtime";

interface Node<T> {
  literals: Map<string, Node<T>>;
  one: Node<T> | undefined;
  /** Values of templates that end in `**` here. */
  rest: Map<string, T>;
  /** Values of templates that end here, by HTTP method; "*" for any. */
  values: Map<string, T>;
}

/** What a path leads to. */
export interface PathMatch<T> {
  value: T;
  /** Segments of the path as they were sent, without the verb. */
  segments: readonly string[];
}

const node = <T>(): Node<T> => ({ literals: new Map(), one: undefined, rest: new Map(), values: new Map() });

export class PathTree<T> {
  /** By verb behind the colon. */
  private readonly roots = new Map<string, Node<T>>();

  /** Adds a value; where the place is taken it stays so, and the one that has it is returned. */
  add(method: string, template: PathTemplate, value: T): T | undefined {
    let at = this.roots.get(template.verb) ?? node<T>();
    this.roots.set(template.verb, at);
    let values = at.values;
    for (const segment of template.segments) {
      if (segment.kind === "rest") {
        values = at.rest;
        break;
      }
      let next: Node<T> | undefined = segment.kind === "one" ? at.one : at.literals.get(segment.text);
      if (next === undefined) {
        next = node();
        if (segment.kind === "one") at.one = next;
        else at.literals.set(segment.text, next);
      }
      at = next;
      values = at.values;
    }
    const other = values.get(method);
    if (other === undefined) values.set(method, value);
    return other;
  }

  /** The value for a request; `path` is what stands before the query, as it was sent. */
  find(method: string, path: string): PathMatch<T> | undefined {
    return this.search(path, (values) => values.get(method) ?? values.get("*"));
  }

  /** The methods that have a value for the path. */
  methodsOf(path: string): string[] {
    const methods = new Set<string>();
    this.search(path, (values) => {
      for (const method of values.keys()) methods.add(method);
      return undefined;
    });
    return [...methods].sort();
  }

  private search(path: string, take: (values: ReadonlyMap<string, T>) => T | undefined): PathMatch<T> | undefined {
    const segments = path.split("/").slice(1);
    const last = segments.at(-1) ?? "";
    const colon = last.lastIndexOf(":");
    const verb = colon < 0 ? undefined : decodeSegment(last.slice(colon + 1));
    if (verb !== undefined && verb !== "") {
      const shorter = [...segments.slice(0, -1), last.slice(0, colon)];
      const found = descend(this.roots.get(verb), shorter, 0, take);
      if (found !== undefined) return { value: found, segments: shorter };
    }
    const found = descend(this.roots.get(""), segments, 0, take);
    return found === undefined ? undefined : { value: found, segments };
  }
}

function descend<T>(
  at: Node<T> | undefined,
  segments: readonly string[],
  index: number,
  take: (values: ReadonlyMap<string, T>) => T | undefined,
): T | undefined {
  if (at === undefined) return undefined;
  const segment = segments[index];
  if (segment === undefined) return take(at.values) ?? take(at.rest);
  const text = decodeSegment(segment);
  const literal = text === undefined ? undefined : at.literals.get(text);
  const found =
    descend(literal, segments, index + 1, take) ??
    (segment === "" ? undefined : descend(at.one, segments, index + 1, take));
  return found ?? take(at.rest);
}

/** The text that a variable took. In a variable of several segments an escaped slash stays escaped, so that it divides nothing. */
export function variableText(
  { from, to }: TemplateVariable,
  template: PathTemplate,
  segments: readonly string[],
): string {
  const isRest = template.segments[to - 1]?.kind === "rest";
  const parts = segments.slice(from, isRest ? undefined : to);
  if (to - from === 1 && !isRest) return decodeSegment(parts[0] ?? "") ?? "";
  return parts.map(decodeExceptSlashes).join("/");
}

function decodeExceptSlashes(part: string): string {
  return part
    .split(/(%2f)/i)
    .map((piece, index) => (index % 2 === 1 ? piece : (decodeSegment(piece) ?? piece)))
    .join("");
}

function decodeSegment(text: string): string | undefined {
  if (!text.includes("%")) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
