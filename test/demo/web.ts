/**
 * The web that the demo reads: pages of 10 to 40 kB with navigation, scripts, comments and footers around an article, served over HTTP.
 * Every third page has broken markup. The words of each article are counted while it is written, so that results can be checked
 * against something that no step of the chain has computed.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

export interface Page {
  path: string;
  html: string;
  /** Words in the article, as a browser would show them. */
  words: number;
  broken: boolean;
}

const vocabulary =
  `river stone harbour lantern winter garden letter signal market bridge copper orchard thunder violin window
  captain meadow candle engine forest glacier hammer island journey kettle ladder mirror needle ocean pepper quarry ribbon saddle
  timber umbrella valley wagon yellow anchor basket cellar desert ember falcon granite horizon ivory jasmine keeper linen marble`
    .trim()
    .split(/\s+/);

/** Reproducible numbers from 0 to below `limit` (mulberry32). */
function createDice(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  };
}

interface Writer {
  dice: (limit: number) => number;
  broken: boolean;
  words: number;
}

function sentence(writer: Writer): string {
  const count = 6 + writer.dice(12);
  const words = Array.from({ length: count }, () => vocabulary[writer.dice(vocabulary.length)] ?? "word");
  const [first = "word", ...rest] = words;
  writer.words += count;
  const text = [`${first[0]?.toUpperCase()}${first.slice(1)}`, ...rest];
  // Markup inside the sentence: well nested, or overlapping and never closed.
  const at = 1 + writer.dice(count - 2);
  text[at] = writer.broken && writer.dice(3) === 0 ? `<b><i>${text[at]}</b></i>` : `<em>${text[at]}</em>`;
  return `${text.join(" ")}.`;
}

function paragraph(writer: Writer): string {
  const text = Array.from({ length: 3 + writer.dice(4) }, () => sentence(writer)).join("\n      ");
  switch (writer.broken ? writer.dice(4) : 3) {
    case 0:
      return `    <p>${text}`; // never closed
    case 1:
      return `    <p class=note onclick='x("<")'>${text}</p></span></div-x>`; // stray end tags
    case 2:
      return `    <div><p>${text}</div>`; // closed by its parent
    default:
      return `    <p>${text}</p>`;
  }
}

function heading(writer: Writer): string {
  const title = `${vocabulary[writer.dice(vocabulary.length)]} &amp; ${vocabulary[writer.dice(vocabulary.length)]}`;
  writer.words += 3;
  return title;
}

/** Noise that is no part of the article: a page is mostly this. */
function chrome(writer: Writer, index: number): { head: string; foot: string } {
  const links = Array.from(
    { length: 40 },
    (_, link) => `<li><a href="/page/${(index + link) % 120}">Story ${link}</a></li>`,
  );
  const script = `<script>window.facts = ${JSON.stringify(vocabulary)}; if (1 < 2 && "</b>") { console.log("<main>not this</main>"); }</script>`;
  const head = `<nav><ul>${links.join("\n")}</ul></nav>\n${script}\n<!-- <main>nor this</main> -->`;
  const foot = `<footer>${Array.from({ length: 30 }, () => vocabulary[writer.dice(vocabulary.length)]).join(" ")} &copy; 2026</footer>`;
  return { head, foot };
}

function writePage(index: number): Page {
  const broken = index % 3 === 0;
  const writer: Writer = { dice: createDice(index + 1), broken, words: 0 };
  const { head, foot } = chrome(writer, index);
  // The first sentence is the digest's, so it stands first in the article.
  const body = [`    <p>${sentence(writer)}</p>`, `    <h1>${heading(writer)}</h1>`];
  while (body.join("").length < 8_000 + (index % 10) * 3_000) body.push(paragraph(writer));
  const html = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Page ${index}</title><style>main { max-width: 60em } p::after { content: "<p>" }</style></head>
<body>
${head}
  <main>
${body.join("\n")}
  </main>
${foot}
${broken ? "</table></body>" : "</body>\n</html>"}
`;
  return { path: `/page/${index}`, html, words: writer.words, broken };
}

export interface DemoWeb {
  origin: string;
  pages: Page[];
  close(): Promise<void>;
}

/** Serves `count` pages on a free port of 127.0.0.1. */
export async function serveDemoWeb(count: number): Promise<DemoWeb> {
  const pages = Array.from({ length: count }, (_, index) => writePage(index));
  const byPath = new Map(pages.map((page) => [page.path, page]));
  const server = createServer((request, response) => {
    const page = byPath.get(request.url ?? "");
    response.writeHead(page ? 200 : 404, { "content-type": "text/html; charset=utf-8" });
    response.end(page?.html ?? "<h1>not found</h1>");
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    pages,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
