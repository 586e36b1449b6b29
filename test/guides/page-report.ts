import { cel, chain } from "@taskmesh/action-sdk/chains";
import { HtmlActionsService, HttpActionsService, TextActionsService } from "@taskmesh/actions/contracts";

/** Fetches a page and writes a line about it; a page without a heading is named by its address. */
export const pageReport = chain(
  "guide.pages.v1.Pages/Report",
  {
    input: { url: "string", selectors: "repeated string" },
    output: { line: "string", status: "int32", long: "bool" },
    runTimeout: "2m",
  },
  ({ input, run, step }) => {
    const fetch = step(
      "fetch",
      HttpActionsService.request,
      { method: "GET", url: input.url, headers: { "x-run": run.id } },
      { retry: { exponential: { initial: "200ms", cap: "2s" }, maxAttempts: 5 }, startToClose: "20s" },
    );
    const title = step("title", HtmlActionsService.select, {
      html: fetch.output.text,
      css: input.selectors[0],
      textOnly: true,
      limit: 1,
    });
    const line = step(
      "line",
      TextActionsService.render,
      {
        template: "{{ title }}: {{ size }} characters",
        values: cel`{'title': ${title.output.text}, 'size': string(size(${fetch.output.text}))}`,
      },
      { when: cel`${title.output.text} != ""` },
    );
    return {
      line: cel`has(${line.output}) ? ${line.output.text} : ${input.url}`,
      status: fetch.output.status,
      long: cel`size(${fetch.output.text}) > ${1000}`,
    };
  },
);
