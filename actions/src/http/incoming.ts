/**
 * From what came over the wire to the answer: decompress, bound, decode.
 *
 * Sizes are counted after decompression while it happens, so a small body that unfolds into a huge one is stopped at the bound and
 * costs no more memory than a body of that size.
 */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { TextDecoder } from "node:util";
import { createBrotliDecompress, createGunzip, createInflate, createInflateRaw } from "node:zlib";
import { fail } from "@taskmesh/action-sdk";

/** A Content-Encoding of more layers than this is an attack or a mistake. */
const encodingLayersMax = 2;
/** Where a page may name its charset, as browsers look for it. */
const charsetPrescanBytes = 1_024;

/** A response body that is not what its headers say; another attempt may get a whole one. */
export class BodyBroken extends Error {
  override readonly name = "BodyBroken";
}

/** The body is above its bound. */
export class BodyTooLarge extends Error {
  override readonly name = "BodyTooLarge";
}

/** Reads a body to its end, decompressed. Rejects with BodyTooLarge, BodyBroken or the error of the stream. */
export async function readBody(stream: Readable, contentEncoding: string, bytesMax: number): Promise<Buffer> {
  const layers = contentEncoding
    .split(",")
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== "" && name !== "identity");
  if (layers.length > encodingLayersMax) throw new BodyBroken(`the body is compressed ${layers.length} times`);
  // An encoding that was not asked for and is not known leaves the bytes as they are.
  if (!layers.every((name) => /^(x-gzip|gzip|deflate|br)$/.test(name))) return collect(stream, bytesMax);
  let parts: AsyncIterable<Buffer> = stream;
  for (const name of layers.reverse()) parts = decompress(parts, name);
  return collect(parts, bytesMax);
}

async function collect(parts: AsyncIterable<Buffer>, bytesMax: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of parts) {
    size += chunk.length;
    if (size > bytesMax) throw new BodyTooLarge(`the body is larger than ${bytesMax} bytes`);
    chunks.push(chunk);
  }
  return chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks, size);
}

/** Decompresses as it is read, so that nobody holds more than the reader asked for. */
async function* decompress(parts: AsyncIterable<Buffer>, encoding: string): AsyncGenerator<Buffer> {
  const input = parts[Symbol.asyncIterator]();
  const first = await firstBytes(input);
  // HEAD, 204 and 304 name an encoding and have no body.
  if (first === undefined) return;
  const inflate = openInflate(encoding, first[0]!);
  // An error of the transfer is kept apart from one of the compression.
  let failure: unknown;
  async function* whole(): AsyncGenerator<Buffer> {
    try {
      yield first!;
      for (let next = await input.next(); !next.done; next = await input.next()) yield next.value;
    } catch (error) {
      failure = error;
      throw error;
    }
  }
  // Its outcome is read from `inflate` below; the caller destroys the source.
  pipeline(whole, inflate).catch(() => undefined);
  try {
    yield* inflate as AsyncIterable<Buffer>;
  } catch (error) {
    throw failure ?? new BodyBroken(`the body is not valid ${encoding}`, { cause: error });
  } finally {
    inflate.destroy();
  }
}

async function firstBytes(input: AsyncIterator<Buffer>): Promise<Buffer | undefined> {
  for (;;) {
    const next = await input.next();
    if (next.done) return undefined;
    if (next.value.length > 0) return next.value;
  }
}

function openInflate(encoding: string, firstByte: number) {
  if (encoding === "br") return createBrotliDecompress();
  if (encoding !== "deflate") return createGunzip();
  // Servers disagree what "deflate" is: a zlib stream begins with method 8, a raw one does not.
  return (firstByte & 0x0f) === 8 ? createInflate() : createInflateRaw();
}

/** The media type in lower case without parameters, and the charset, each empty if it is not told. */
export function parseContentType(header: string): { mediaType: string; charset: string } {
  const [type = "", ...parameters] = header.split(";");
  const charset = parameters
    .map((part) => /^\s*charset\s*=\s*"?([^\s"]+)"?\s*$/i.exec(part)?.[1])
    .find((found) => found);
  return { mediaType: type.trim().toLowerCase(), charset: charset?.toLowerCase() ?? "" };
}

/** The body as text if it is text, decoded as a browser would; undefined if it is binary. */
export function decodeText(body: Buffer, contentType: string): string | undefined {
  const { mediaType, charset } = parseContentType(contentType);
  if (!isText(mediaType, body)) return undefined;
  const label = bomCharset(body) ?? (charset || htmlCharset(body, mediaType) || "utf-8");
  return decoderFor(label).decode(body);
}

function isText(mediaType: string, body: Buffer): boolean {
  if (mediaType === "") return looksLikeText(body);
  return (
    mediaType.startsWith("text/") ||
    /[/+](json|xml|yaml|javascript|ecmascript|x-www-form-urlencoded|graphql|ndjson|x-ndjson|jsonlines|sql|toml)$/.test(
      mediaType,
    )
  );
}

/** Without a media type: valid UTF-8 without NUL. A character that is cut off by the end of the sample doesn't matter. */
function looksLikeText(body: Buffer): boolean {
  const sample = body.subarray(0, 4_096);
  if (sample.includes(0)) return false;
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(sample, { stream: sample.length < body.length });
    return true;
  } catch {
    return false;
  }
}

function bomCharset(body: Buffer): string | undefined {
  if (body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf) return "utf-8";
  if (body[0] === 0xfe && body[1] === 0xff) return "utf-16be";
  if (body[0] === 0xff && body[1] === 0xfe) return "utf-16le";
  return undefined;
}

function htmlCharset(body: Buffer, mediaType: string): string {
  if (!/html|xml/.test(mediaType)) return "";
  const head = body.subarray(0, charsetPrescanBytes).toString("latin1");
  const found =
    /<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]+)/i.exec(head) ??
    /<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)/i.exec(head);
  const label = found?.[1]?.toLowerCase() ?? "";
  // The declaration could be read, so the page is not UTF-16, whatever it says.
  return label.startsWith("utf-16") ? "utf-8" : label;
}

function decoderFor(label: string): TextDecoder {
  try {
    return new TextDecoder(label);
  } catch {
    return new TextDecoder("utf-8");
  }
}

/** Milliseconds that a Retry-After header asks for, at most a day; undefined if it says nothing useful. */
export function parseRetryAfter(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  const dayMs = 86_400_000;
  if (/^\s*\d{1,9}\s*$/.test(header)) return Math.min(Number(header) * 1_000, dayMs);
  const at = Date.parse(header);
  return Number.isNaN(at) ? undefined : Math.min(Math.max(0, at - nowMs), dayMs);
}

/** Fails if the answer would not fit into a payload. */
export function checkTextSize(text: string, bytesMax: number): void {
  // A byte of an old charset can become three of UTF-8.
  if (text.length * 3 <= bytesMax || Buffer.byteLength(text) <= bytesMax) return;
  throw fail.final("HTTP_TOO_LARGE", `the text has more than ${bytesMax} bytes in UTF-8`);
}
