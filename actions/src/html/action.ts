/** The actions of `taskmesh.html.v1.HtmlActions`: content and links of pages. */
import { type AnyAction, defineAction } from "@taskmesh/action-sdk";
import type { ThreadPool } from "../bounded/thread-pool.js";
import { HtmlActionsService } from "../gen/taskmesh/html/v1/html.js";

/** Makes the actions; a page can be built to be slow to parse, so they run in `threads`. */
export function htmlActions(threads: ThreadPool): AnyAction[] {
  return [
    defineAction(HtmlActionsService.select, (input, { signal }) => threads.run("selectHtml", input, signal)),
    defineAction(HtmlActionsService.extractLinks, (input, { signal }) => threads.run("extractLinks", input, signal)),
  ];
}
