import { runAction } from "@taskmesh/action-sdk/testing";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { createThreadPool } from "../bounded/thread-pool.js";
import { builtinDescriptors } from "../gen/descriptors.js";
import {
  ExtractLinksRequest,
  type ExtractLinksResponse,
  SelectMode,
  SelectRequest,
  type SelectResponse,
} from "../gen/taskmesh/html/v1/html.js";
import { htmlActions } from "./action.js";
import { extractLinks, selectHtml } from "./select.js";

const threads = createThreadPool();
afterAll(() => threads.close());
const [select, links] = htmlActions(threads);
const options = { descriptors: builtinDescriptors };

const selected = (input: Partial<SelectRequest>): SelectResponse => selectHtml(SelectRequest.fromPartial(input));
const linked = (input: Partial<ExtractLinksRequest>): ExtractLinksResponse =>
  extractLinks(ExtractLinksRequest.fromPartial(input));
const textOf = (html: string, css = "body") => selected({ html, css }).text;

const page = `<!doctype html><html><head><title>A  title</title><style>p{}</style></head><body>
<h1 class="big">News</h1><ul id=list><li>One <b>b</b>old</li><li data-n="2">Two</li><li>Three</ul>
<script>var hidden = 1;</script><noscript><img src="/lazy.png"></noscript><p>Line<br>break&nbsp;here &amp; there</p></body></html>`;

describe("Select", () => {
  it("runs as an action", async () => {
    const input = SelectRequest.fromPartial({ html: page, css: "li" });
    const { output } = await runAction(select!, input, options);
    expect(output).toEqual({
      text: "One bold",
      count: 3,
      matches: [
        { text: "One bold", html: "", attributes: {} },
        { text: "Two", html: "", attributes: { "data-n": "2" } },
        { text: "Three", html: "", attributes: {} },
      ],
    });
  });

  it("reads text as a reader sees it", () => {
    expect(textOf(page)).toBe("News One bold Two Three Line break here & there");
    expect(textOf(page, "title")).toBe("A title");
    expect(textOf("<table><tr><td>a</td><td>b</td></tr><tr><td>c</table>")).toBe("a b c");
    expect(textOf("<div>a</div><div>b<span>c</span></div>d")).toBe("a bc d");
    expect(textOf('<script type="application/ld+json">{"a": 1}</script>', "script")).toBe('{"a": 1}');
  });

  it("takes HTML, inner HTML, attributes, the first or all, some or none", () => {
    const html = SelectMode.SELECT_MODE_HTML;
    const inner = SelectMode.SELECT_MODE_INNER_HTML;
    expect(selected({ html: page, css: "li", mode: html }).matches[0]).toEqual({
      text: "",
      html: "<li>One <b>b</b>old</li>",
      attributes: {},
    });
    expect(selected({ html: page, css: "li", mode: inner }).text).toBe("One <b>b</b>old");
    expect(selected({ html: page, css: "li", attribute: "data-n" })).toMatchObject({ text: "2", count: 1 });
    expect(selected({ html: page, css: "noscript img", attribute: "src" }).text).toBe("/lazy.png");
    expect(selected({ html: page, css: "li", join: " | " }).text).toBe("One bold | Two | Three");
    expect(selected({ html: page, css: "li", limit: 2, join: "," })).toMatchObject({ text: "One bold,Two", count: 3 });
    expect(selected({ html: page, css: "li", textOnly: true })).toEqual({ text: "One bold", matches: [], count: 3 });
    expect(selected({ html: page, css: "li", textOnly: true, join: "," }).text).toBe("One bold,Two,Three");
    expect(selected({ html: page, css: ".none" })).toEqual({ text: "", matches: [], count: 0 });
    expect(selected({ html: "", css: "body" })).toMatchObject({ text: "", count: 1 });
  });

  it.each(["p[", "", " ", ":nonsense", "<div>", "a,,b", "::before", "a:not(", "!", "#"])(
    "calls the selector %j invalid",
    async (css) => {
      const { failure } = await runAction(select!, SelectRequest.fromPartial({ html: page, css }), options);
      expect(failure).toMatchObject({ reason: css === "" ? "INPUT_INVALID" : "CSS_INVALID", retryable: false });
    },
  );

  it("reads broken markup as browsers do", () => {
    expect(textOf("<p>one<p>two<b>three<i>four</b>five</i>")).toBe("one twothreefourfive");
    expect(textOf("<div><span>a</div>b</span>c")).toBe("a bc");
    expect(textOf("<table>stray<tr><td>cell", "body")).toBe("stray cell");
    expect(textOf("a < b && c > d <1 <")).toBe("a < b && c > d <1 <");
    expect(textOf("<ul><li>a<li>b<ul><li>c</ul></ul", "li")).toBe("a");
    expect(textOf('<a href="x>unclosed quote</a> rest', "body")).toBe("");
    expect(textOf("<!-- never closed <p>x")).toBe("");
    expect(textOf("<textarea><p>raw", "textarea")).toBe("<p>raw");
    expect(textOf("<svg><p>out</p><title>t</svg>")).toContain("out");
    expect(textOf("nul\0char &#0; &#xD800; &#x110000; &bogus;")).toBe("nulchar \ufffd \ufffd \ufffd &bogus;");
    expect(textOf("</body></html><p>after")).toBe("after");
    expect(textOf("<frameset><frame></frameset>", "frame")).toBe("");
    expect(textOf('<p class=a class=b id="q"r>t', "p.a#q")).toBe("t");
  });

  it("survives any markup, and counts what it returns", () => {
    const piece = fc.constantFrom(
      ..."<p> </p> <b> </b> <table> <tr> <td> </table> <a href='x'> </a> <!-- --> <script> </script> <svg> <math> <template> </template> <select> <option> text & &amp; < > \" ' \0 <br/> <![CDATA[ ]]> <?x ?> <form> </form> ü 😀".split(
        " ",
      ),
    );
    fc.assert(
      fc.property(
        fc.array(piece, { maxLength: 60 }),
        fc.constantFrom("*", "p", "a", "td b", "body > *"),
        (pieces, css) => {
          const { matches, count } = selected({ html: pieces.join(""), css, mode: SelectMode.SELECT_MODE_HTML });
          expect(matches).toHaveLength(count);
          linked({ html: pieces.join(""), baseUrl: "http://h/" });
        },
      ),
      { numRuns: 300 },
    );
  });

  it("reads pages that nest ten thousand levels deep", () => {
    const deep = "<div>".repeat(10_000);
    expect(textOf(`${deep}bottom`)).toBe("bottom");
    expect(selected({ html: `${deep}<a href=/x>`, css: "a" }).count).toBe(1);
    expect(linked({ html: `${deep}<a href=/x>y`, baseUrl: "http://h/" }).links).toEqual([
      { url: "http://h/x", text: "y", rel: "" },
    ]);
  });

  it("ends at its bounds where a page is built to be slow, and leaves the main loop free meanwhile", async () => {
    const impatient = createThreadPool({ timeoutMs: 1_500 });
    const [slowSelect] = htmlActions(impatient);
    // Each paragraph has to open all the formatting elements before it again: quadratic by the standard.
    const html = Array.from({ length: 20_000 }, (_, index) => `<font size=${index}>`).join("") + "<p>x".repeat(20_000);
    let ticks = 0;
    const ticking = setInterval(() => ticks++, 10);
    const { failure } = await runAction(slowSelect!, SelectRequest.fromPartial({ html, css: "p" }));
    clearInterval(ticking);
    expect(failure).toMatchObject({ reason: "LIMIT_EXCEEDED", retryable: false });
    // A loop that was held up for the 1.5 seconds would have ticked once.
    expect(ticks).toBeGreaterThan(5);
    // The pool works on.
    const { output } = await runAction(slowSelect!, SelectRequest.fromPartial({ html: page, css: "h1" }));
    expect(output).toMatchObject({ text: "News" });
    await impatient.close();
  });

  it("selects in a page of 20 MB", async () => {
    const row = `<tr><td class="name">Name</td><td>${"Some text that fills the page. ".repeat(100)}</td></tr>`;
    const html = `<table>${row.repeat(Math.ceil((20 * 1024 * 1024) / row.length))}</table><p id=end>end</p>`;
    const { output, failure } = await runAction(select!, SelectRequest.fromPartial({ html, css: "#end" }), options);
    expect(failure).toBeUndefined();
    expect(output).toMatchObject({ text: "end", count: 1 });
  });

  it("refuses an output that would not fit into a payload", () => {
    const html = `${"<div>".repeat(40)}${"x".repeat(1_600_000)}`;
    expect(() => selected({ html, css: "div", mode: SelectMode.SELECT_MODE_HTML })).toThrow(
      expect.objectContaining({ reason: "OUTPUT_TOO_LARGE" }),
    );
  });
});

describe("ExtractLinks", () => {
  const baseUrl = "https://example.org/dir/page.html?q#f";
  const html = `<a href="one">One</a> <a href="/two#part" rel="NoFollow UGC">Two <b>bold</b></a> <a href="//other.org/x">O</a>
    <a href="#top">Top</a> <a href="mailto:a@b.c">M</a> <a href="javascript:alert(1)">J</a> <a>No</a> <a href="one">Again</a>
    <a href=" two&#10; ">Two again, with space</a> <map><area href="/map" alt="x"></map> <nav><a href="?q=1">Nav</a></nav> <a href="http://[">Broken</a>`;

  it("lists absolute addresses once, in order, with text and rel", async () => {
    const { output } = await runAction(links!, ExtractLinksRequest.fromPartial({ html, baseUrl }), options);
    expect(output).toEqual({
      count: 6,
      links: [
        { url: "https://example.org/dir/one", text: "One", rel: "" },
        { url: "https://example.org/two", text: "Two bold", rel: "nofollow ugc" },
        { url: "https://other.org/x", text: "O", rel: "" },
        { url: "https://example.org/dir/two", text: "Two again, with space", rel: "" },
        { url: "https://example.org/map", text: "", rel: "" },
        { url: "https://example.org/dir/page.html?q=1", text: "Nav", rel: "" },
      ],
    });
  });

  it("filters by selector, host, scheme and limit", () => {
    const urls = (input: Partial<ExtractLinksRequest>) =>
      linked({ html, baseUrl, ...input }).links.map(({ url }) => url);
    expect(urls({ css: "nav" })).toEqual(["https://example.org/dir/page.html?q=1"]);
    expect(urls({ css: "a[rel]" })).toEqual(["https://example.org/two"]);
    expect(urls({ sameHost: true })).not.toContain("https://other.org/x");
    expect(urls({ schemes: ["mailto"] })).toEqual(["mailto:a@b.c"]);
    expect(linked({ html, baseUrl, limit: 2 })).toMatchObject({
      count: 6,
      links: [{ text: "One" }, { text: "Two bold" }],
    });
  });

  it("resolves against <base>, and leaves relative links out where nothing says what they are relative to", () => {
    const based = '<base href="/root/"><base href="/second/"><a href="x">x</a>';
    expect(linked({ html: based, baseUrl }).links[0]?.url).toBe("https://example.org/root/x");
    expect(linked({ html: '<a href="x">x</a><a href="https://a.b/">y</a>' }).links).toEqual([
      { url: "https://a.b/", text: "y", rel: "" },
    ]);
    expect(linked({ html: '<base href="https://c.d/e/"><a href="x">x</a>' }).links[0]?.url).toBe("https://c.d/e/x");
  });

  it.each([
    ["URL_INVALID", { baseUrl: "nonsense" }],
    ["URL_INVALID", { sameHost: true }],
    ["CSS_INVALID", { css: "a[" }],
    ["INPUT_INVALID", { schemes: ["HT TP"] }],
  ])("refuses with %s: %j", async (reason, input) => {
    const { failure } = await runAction(links!, ExtractLinksRequest.fromPartial({ html, ...input }), options);
    expect(failure).toMatchObject({ reason, retryable: false });
  });
});
