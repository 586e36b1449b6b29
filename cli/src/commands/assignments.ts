import { Command } from "@commander-js/extra-typings";
import { type JsonObject, object, objects, text } from "../json.js";
import { readJsonInput } from "../json-input.js";
import { parseLimit } from "../options.js";
import { plain } from "../output.js";
import { openSession } from "../session.js";
import { showAgo, showUntil } from "../show.js";

/** Largest page that the mesh serves. */
const pageMax = 1_000;

const pathOf = (runId: string, stepId: string): string =>
  `/api/v1/assignments/${encodeURIComponent(runId)}/${encodeURIComponent(stepId)}`;

const collect = (value: string, before: string[]): string[] => [...before, value];

const texts = (value: JsonObject[string] | undefined): string[] => (Array.isArray(value) ? value.map(text) : []);

/** Whom an assignment is for. */
const forWhom = (one: JsonObject): string => {
  const names = [...texts(one.assignees), ...texts(one.groups).map((group) => `${group} (group)`)];
  return names.length === 0 ? "everybody" : names.join(", ");
};

/** `taskmesh assignments list`: what waiting steps ask of people. */
export const assignmentsList = () =>
  new Command("list")
    .description("list what waits for people, newest run first")
    .option("-p, --person <name>", "only what this person may claim, or has claimed")
    .option("-g, --group <name>", "and what members of this group may claim; may be repeated", collect, [])
    .option("-u, --unclaimed", "only what nobody has claimed")
    .option("-r, --run <run-id>", "only of this run")
    .option("-n, --limit <number>", "at most this many", parseLimit, 20)
    .action(async (options, command) => {
      const { api, out } = openSession(command);
      const found: JsonObject[] = [];
      let pageToken: string | undefined;
      do {
        const query = {
          person: options.person,
          group: options.group,
          unclaimed: options.unclaimed ? "true" : undefined,
          runId: options.run,
          pageSize: Math.min(pageMax, options.limit - found.length),
          pageToken,
        };
        const page = await api.call("GET", "/api/v1/assignments", { query });
        found.push(...objects(page.assignments));
        pageToken = text(page.nextPageToken) || undefined;
      } while (pageToken !== undefined && found.length < options.limit);
      out.document({ assignments: found, more: pageToken !== undefined });
      if (out.json) return;
      if (found.length === 0) return out.note("Nothing waits for people.");
      const now = Date.now();
      out.table(
        ["RUN", "STEP", "TITLE", "FOR", "CLAIMED BY", "OPENED", "DUE"],
        found.map((one) => [
          plain(text(one.runId)),
          plain(text(one.stepId)),
          plain(text(one.title)),
          plain(forWhom(one)),
          plain(text(one.claimedBy)),
          showAgo(one.openedAt, now),
          showUntil(one.dueAt, now),
        ]),
      );
    });

/** `taskmesh assignments show`: one assignment and its form. */
export const assignmentsShow = () =>
  new Command("show")
    .description("show an assignment and the form that completes it")
    .argument("<run-id>")
    .argument("<step>")
    .action(async (runId, stepId, _options, command) => {
      const { api, out } = openSession(command);
      const answer = await api.call("GET", pathOf(runId, stepId));
      out.document(answer);
      if (out.json) return;
      const one = object(answer.assignment);
      out.line(out.colors.bold(plain(text(one.title) || stepId)));
      if (text(one.instructions) !== "") out.line(plain(text(one.instructions), { lines: true }));
      const holder = text(one.claimedBy);
      out.line(`for ${plain(forWhom(one))}${holder === "" ? "" : `, claimed by ${plain(holder)}`}`);
      if (one.dueAt) out.line(`due ${showUntil(one.dueAt, Date.now())}`);
      const escalated = Number(one.escalated ?? 0);
      if (escalated > 0) out.line(`escalated ${escalated === 1 ? "once" : `${escalated} times`}`);
      out.line();
      out.table(
        ["FIELD", "TYPE", "CHOICES"],
        objects(answer.form).map((field) => [
          plain(text(field.name)),
          plain(text(field.type)),
          plain(texts(field.choices).join(", ")),
        ]),
      );
    });

const me = ["-p, --person <name>", "who does it"] as const;

/** `taskmesh assignments claim`: reserves an assignment for a person. */
export const assignmentsClaim = () =>
  new Command("claim")
    .description("claim an assignment for a person: nobody else can complete it then")
    .argument("<run-id>")
    .argument("<step>")
    .requiredOption(...me)
    .option("-g, --group <name>", "group that the person is in; may be repeated", collect, [])
    .action(async (runId, stepId, { person, group: groups }, command) => {
      const { api, out } = openSession(command);
      out.document(await api.call("POST", `${pathOf(runId, stepId)}/claim`, { body: { person, groups } }));
      out.line(`${stepId} is ${person}'s`);
    });

/** `taskmesh assignments release`: gives an assignment back. */
export const assignmentsRelease = () =>
  new Command("release")
    .description("give a claimed assignment back")
    .argument("<run-id>")
    .argument("<step>")
    .requiredOption(...me)
    .action(async (runId, stepId, { person }, command) => {
      const { api, out } = openSession(command);
      out.document(await api.call("POST", `${pathOf(runId, stepId)}/release`, { body: { person } }));
      out.line(`${stepId} is nobody's`);
    });

/** `taskmesh assignments comment`: adds a remark to the run's history. */
export const assignmentsComment = () =>
  new Command("comment")
    .description("add a remark to the run's history")
    .argument("<run-id>")
    .argument("<step>")
    .argument("<text>")
    .requiredOption(...me)
    .action(async (runId, stepId, remark, { person }, command) => {
      const { api, out } = openSession(command);
      out.document(await api.call("POST", `${pathOf(runId, stepId)}/comment`, { body: { person, text: remark } }));
      out.line("it is in the run's history");
    });

/** `taskmesh assignments complete`: ends the step with a filled-in form. */
export const assignmentsComplete = () =>
  new Command("complete")
    .description("fill in the form: the step ends with it")
    .argument("<run-id>")
    .argument("<step>")
    .requiredOption(...me)
    .option("-i, --input <json>", "the form as JSON; @file reads a file, - reads stdin", "{}")
    .option("-g, --group <name>", "group that the person is in; may be repeated", collect, [])
    .action(async (runId, stepId, { person, group: groups, input }, command) => {
      const { api, out } = openSession(command);
      const bodyText = `${JSON.stringify({ person, groups }).slice(0, -1)},"output":${readJsonInput(input)}}`;
      out.document(await api.call("POST", `${pathOf(runId, stepId)}/complete`, { bodyText }));
      out.line(`${stepId} is complete`);
    });
