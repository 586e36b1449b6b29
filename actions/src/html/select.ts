/**
 * Reading pages: content by CSS selector, links.
 *
 * The parser is the one of the HTML standard (parse5 behind cheerio), so broken markup becomes the tree that a browser makes of it.
 * Walks are loops, never recursion: a page may nest as deep as it likes.
 */
import * as cheerio from "cheerio";
import type { AnyNode, Document, Element, ParentNode } from "domhandler";
import { createOutputMeter, TaskFailure } from "../bounded/task-failure.js";
import {
  type ExtractLinksRequest,
  type ExtractLinksResponse,
  type Link,
  type Match,
  SelectMode,
  type SelectRequest,
  type SelectResponse,
} from "../gen/taskmesh/html/v1/html.js";

/** Matches and links that are returned when the request doesn't say. */
const limitDefault = 1_000;
/** Elements whose text nobody sees. */
const unseen = new Set(["script", "style", "template", "noscript", "head"]);
/** Elements inside a line of text: everything else separates words, as it does on a screen. */
const inline = new Set(
  "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd label mark q ruby rb rt rp s samp small span strike strong sub sup time tt u var wbr".split(
    " ",
  ),
);

type Page = cheerio.CheerioAPI;

// Without scripting, what a page offers in <noscript> can be selected.
const parse = (html: string): Page => cheerio.load(html, { scriptingEnabled: false }, true);

/** Finds elements. Throws CSS_INVALID, OUTPUT_TOO_LARGE. */
export function selectHtml(request: SelectRequest): SelectResponse {
  const page = parse(request.html);
  const { attribute, mode, join } = request;
  const limit = request.limit || limitDefault;
  const found = findAll(page, request.css).filter((element) => attribute === "" || attribute in element.attribs);
  const read = (element: Element): string => {
    if (attribute !== "") return element.attribs[attribute] ?? "";
    if (mode === SelectMode.SELECT_MODE_HTML) return page.html(element);
    if (mode === SelectMode.SELECT_MODE_INNER_HTML) return page(element).html() ?? "";
    return textOf(element);
  };
  const meter = createOutputMeter();
  const isHtml =
    attribute === "" && (mode === SelectMode.SELECT_MODE_HTML || mode === SelectMode.SELECT_MODE_INNER_HTML);
  // Without a need for all of them, only the first is read.
  const wanted = request.textOnly && join === undefined ? Math.min(limit, 1) : limit;
  const contents: string[] = [];
  const matches: Match[] = [];
  for (const element of found.slice(0, wanted)) {
    const content = read(element);
    meter(content);
    contents.push(content);
    if (request.textOnly) continue;
    const attributes = Object.entries(element.attribs);
    for (const [name, value] of attributes) meter(name + value);
    matches.push({
      text: isHtml ? "" : content,
      html: isHtml ? content : "",
      attributes: Object.fromEntries(attributes),
    });
  }
  const text = join === undefined ? (contents[0] ?? "") : contents.join(join);
  if (!request.textOnly || contents.length > 1) meter(text);
  return { text, matches, count: found.length };
}

function findAll(page: Page, css: string): Element[] {
  // The library takes these for markup to make, or for nothing to look for.
  if (/^\s*(<|$)/.test(css)) throw new TaskFailure("CSS_INVALID", "the selector cannot be parsed: it selects nothing");
  try {
    return page.root().find(css).toArray();
  } catch (cause) {
    if (cause instanceof RangeError || !(cause instanceof Error)) throw cause;
    throw new TaskFailure("CSS_INVALID", `the selector cannot be parsed: ${cause.message.slice(0, 500)}`, cause);
  }
}

/** What a reader sees of an element. An element that is itself unseen, such as a script that was selected, is read as it stands. */
function textOf(root: Element): string {
  const parts: string[] = [];
  walk(root, (node) => {
    if (node.type === "text") parts.push(node.data);
    if (!isElement(node)) return { descend: false };
    if (node !== root && unseen.has(node.name)) return { descend: false };
    if (inline.has(node.name)) return { descend: true };
    parts.push(" ");
    return { descend: true, leave: () => parts.push(" ") };
  });
  return parts.join("").replace(/\s+/g, " ").trim();
}

/** Visits a tree in the order of the page. `leave` is called after the descendants of its node. */
function walk(root: AnyNode, enter: (node: AnyNode) => { descend: boolean; leave?: () => void }): void {
  const stack: (AnyNode | (() => void))[] = [root];
  for (let top = stack.pop(); top !== undefined; top = stack.pop()) {
    if (typeof top === "function") {
      top();
      continue;
    }
    const { descend, leave } = enter(top);
    if (leave) stack.push(leave);
    if (!descend) continue;
    const { children } = top as ParentNode;
    for (let index = children.length - 1; index >= 0; index--) stack.push(children[index]!);
  }
}

/** Also script and style, which the tree counts as types of their own. */
const isElement = (node: AnyNode): node is Element => "attribs" in node;

/** Lists links. Throws CSS_INVALID, URL_INVALID, OUTPUT_TOO_LARGE. */
export function extractLinks(request: ExtractLinksRequest): ExtractLinksResponse {
  const page = parse(request.html);
  const pageUrl = parseBase(request);
  const baseUrl = baseOf(page, pageUrl);
  const schemes = new Set((request.schemes.length > 0 ? request.schemes : ["http", "https"]).map((name) => `${name}:`));
  const limit = request.limit || limitDefault;
  const meter = createOutputMeter();
  const seen = new Set<string>();
  const links: Link[] = [];
  for (const element of linkElements(page, request.css)) {
    const url = resolve(element.attribs["href"]!, baseUrl);
    if (!url || !schemes.has(url.protocol) || (request.sameHost && url.host !== pageUrl?.host)) continue;
    if (seen.has(url.href)) continue;
    seen.add(url.href);
    if (links.length >= limit) continue;
    const link = { url: url.href, text: textOf(element), rel: (element.attribs["rel"] ?? "").trim().toLowerCase() };
    for (const text of Object.values(link)) meter(text);
    links.push(link);
  }
  return { links, count: seen.size };
}

function parseBase({ baseUrl, sameHost }: ExtractLinksRequest): URL | undefined {
  if (baseUrl === "") {
    if (sameHost) throw new TaskFailure("URL_INVALID", "same_host needs a base_url");
    return undefined;
  }
  if (!URL.canParse(baseUrl)) throw new TaskFailure("URL_INVALID", "base_url is not an absolute address");
  return new URL(baseUrl);
}

/** The first <base> of a page counts. */
function baseOf(page: Page, pageUrl: URL | undefined): URL | undefined {
  const href = page("base[href]").first().attr("href");
  return (href === undefined ? undefined : resolve(href, pageUrl)) ?? pageUrl;
}

/** Links in the order of the page; with a selector those that match it or are inside of what does. */
function linkElements(page: Page, css: string): Element[] {
  const chosen = css === "" ? undefined : new Set<AnyNode>(findAll(page, css));
  const found: Element[] = [];
  let inside = 0;
  walk(page.root()[0] as Document, (node) => {
    if (node.type !== "root" && !isElement(node)) return { descend: false };
    const isChosen = chosen?.has(node) ?? false;
    if (isChosen) inside++;
    if (isElement(node) && /^(a|area)$/.test(node.name) && "href" in node.attribs && (!chosen || inside > 0)) {
      // A place on the same page is no link to another.
      if (!node.attribs["href"]!.trim().startsWith("#")) found.push(node);
    }
    return isChosen ? { descend: true, leave: () => inside-- } : { descend: true };
  });
  return found;
}

function resolve(href: string, base: URL | undefined): URL | undefined {
  // Longer ones are data, and quadratic in the output.
  if (href.length > 16_384 || !URL.canParse(href, base?.href)) return undefined;
  const url = new URL(href, base);
  url.hash = "";
  return url;
}
