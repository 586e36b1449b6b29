/** Liquid templates that see their values and nothing else: no files, no prototypes, bounded in time, memory and output. */
import { Liquid, LiquidError } from "liquidjs";
import { memoize } from "../bounded/memo.js";
import { createOutputMeter, TaskFailure } from "../bounded/task-failure.js";

/** What a template is rendered with. */
export interface RenderTask {
  template: string;
  /** Names of variables to their values. */
  scope: Record<string, unknown>;
  strict: boolean;
  escapeHtml: boolean;
}

/** Longest template; the contract says the same. */
const templateCharsMax = 1024 * 1024;
/** Longest time of rendering, in milliseconds; the thread's own limit is behind it. */
const renderMsMax = 10_000;
/** Characters and array items that filters may make in all. */
const memoryUnitsMax = 128 * 1024 * 1024;

// No template can be found, so include, render and layout fail whatever they name.
const noFiles = {
  exists: () => Promise.resolve(false),
  existsSync: () => false,
  readFile: () => Promise.reject(new Error("templates cannot read files")),
  readFileSync: () => {
    throw new Error("templates cannot read files");
  },
  resolve: (_dir: string, file: string) => file,
};

/** Parsed templates that are kept; a template of 16 KiB takes about a megabyte. */
const templatesKept = 50;

function createEngine(escapeHtml: boolean) {
  const liquid = new Liquid({
    fs: noFiles,
    relativeReference: false,
    dynamicPartials: false,
    ownPropertyOnly: true,
    strictFilters: true,
    // The same text on every host.
    timezoneOffset: 0,
    locale: "en-US",
    parseLimit: templateCharsMax,
    renderLimit: renderMsMax,
    memoryLimit: memoryUnitsMax,
    ...(escapeHtml && { outputEscape: "escape" as const }),
  });
  return { liquid, parse: memoize(templatesKept, (template) => liquid.parse(template)) };
}

const plain = createEngine(false);
const escaping = createEngine(true);

/** Renders. Throws TEMPLATE_INVALID, RENDER_FAILED, LIMIT_EXCEEDED, OUTPUT_TOO_LARGE. */
export function renderTemplate({ template, scope, strict, escapeHtml }: RenderTask): string {
  const { liquid, parse } = escapeHtml ? escaping : plain;
  const parsed = refusing("TEMPLATE_INVALID", () => parse(template));
  const text: unknown = refusing("RENDER_FAILED", () => liquid.renderSync(parsed, scope, { strictVariables: strict }));
  const rendered = String(text);
  createOutputMeter()(rendered);
  return rendered;
}

function refusing<T>(reason: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (!LiquidError.is(error)) throw error;
    const { message } = error;
    // A string that is longer than the language can hold, or a stack that is full.
    if (
      error.originalError instanceof RangeError ||
      /(parse length|template render|memory alloc) limit exceeded/.test(message)
    ) {
      throw new TaskFailure("LIMIT_EXCEEDED", message, error);
    }
    throw new TaskFailure(reason, message, error);
  }
}
