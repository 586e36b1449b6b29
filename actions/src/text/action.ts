/** The actions of `taskmesh.text.v1.TextActions`: regular expressions, normalising, templates. */
import { type ActionContext, type AnyAction, defineAction, fail } from "@taskmesh/action-sdk";
import { TaskFailure } from "../bounded/task-failure.js";
import type { ThreadPool } from "../bounded/thread-pool.js";
import { type RenderRequest, type RenderResponse, TextActionsService } from "../gen/taskmesh/text/v1/text.js";
import { normalizeText } from "./normalize.js";
import { renderTemplate } from "./render.js";

/** Makes the actions; what an input can make slow runs in `threads`. */
export function textActions(threads: ThreadPool): AnyAction[] {
  return [
    defineAction(TextActionsService.regexApply, (input, { signal }) => threads.run("applyRegex", input, signal)),
    defineAction(TextActionsService.normalize, (input) => ({ text: normalizeText(input) })),
    defineAction(TextActionsService.render, (input, ctx) => render(input, ctx, threads)),
  ];
}

/** Templates up to this length and outputs up to that one are rendered without a thread, if nothing in them can multiply. */
const plainTemplateCharsMax = 16 * 1024;
const plainOutputCharsMax = 1024 * 1024;
/** Text and bare variables: no tags, no filters, no paths. */
const plainTemplate = /^(?:[^{]|\{(?![{%])|\{\{\s*[A-Za-z_]\w*\s*\}\})*$/;

async function render(input: RenderRequest, ctx: ActionContext, threads: ThreadPool): Promise<RenderResponse> {
  const { template, strict, escapeHtml } = input;
  const task = { template, scope: { ...input.data, ...input.values }, strict, escapeHtml };
  if (!isPlain(input)) return { text: await threads.run("renderTemplate", task, ctx.signal) };
  try {
    return { text: renderTemplate(task) };
  } catch (error) {
    throw error instanceof TaskFailure ? fail.final(error.reason, error.message, { cause: error }) : error;
  }
}

/** Whether rendering is known to be cheap: then a thread would cost more than the work. */
function isPlain({ template, values, data }: RenderRequest): boolean {
  if (data !== undefined || template.length > plainTemplateCharsMax || !plainTemplate.test(template)) return false;
  const longest = Object.values(values).reduce((most, value) => Math.max(most, value.length), 0);
  const places = template.split("{{").length - 1;
  return template.length + places * longest <= plainOutputCharsMax;
}
