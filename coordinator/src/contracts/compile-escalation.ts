/**
 * Escalations of steps that ask people, checked.
 *
 * Whom an assignment goes to next is said by expressions like whom it goes to first, so they are further fields of the same message, numbered by
 * the escalation: `assignees_1`, `groups_1`. The message is evaluated once, when the assignment opens.
 */
import type { Expression, StepSpec } from "@taskmesh/proto";
import { nearestName } from "@taskmesh/runtime";
import type { EscalationPlan } from "../engine/plan.js";
import type { Report } from "./compile-message.js";
import { durationMs, type SettingFault } from "./step-settings.js";

/** Escalations of one assignment at most. */
const escalationsMax = 10;

/** What the escalations of a step add to what it asks. */
export interface ReadEscalations {
  /** Types and values of further fields. */
  types: Record<string, string>;
  fields: Record<string, Expression | undefined>;
  plans: EscalationPlan[];
}

/** Reads them; what is wrong is reported and left out. */
export function readEscalations(
  { id, human, scheduleToClose }: StepSpec,
  path: string,
  report: Report,
): ReadEscalations {
  const read: ReadEscalations = { types: {}, fields: {}, plans: [] };
  const escalations = human?.escalations ?? [];
  const at = { stepId: id, field: "human.escalations" };
  const all = { ...at, path: `${path}.human.escalations` };
  if (escalations.length > escalationsMax) {
    const message = `${escalations.length} escalations are too many; at most ${escalationsMax} are allowed`;
    report({ ...all, reason: "TOO_LARGE", message });
    return read;
  }
  const endMs = durationMs(scheduleToClose, "", 1, []) ?? Number.POSITIVE_INFINITY;
  let beforeMs = 0;
  for (const [index, { after, assignees, groups, steps }] of escalations.entries()) {
    const place = { ...at, path: `${all.path}[${index}]` };
    const faults: SettingFault[] = [];
    const afterMs = durationMs(after, "after", 1, faults);
    for (const { path: setting, ...fault } of faults)
      report({ ...place, reason: "OUT_OF_RANGE", ...fault, path: `${place.path}.${setting}` });
    if (after === undefined)
      report({ ...place, reason: "MISSING_VALUE", message: "nothing says when it happens", expected: "after" });
    if (assignees === undefined && groups === undefined && steps.length === 0) {
      const message = "the escalation does nothing";
      report({ ...place, reason: "MISSING_VALUE", message, expected: "assignees, groups or steps" });
    }
    if (afterMs === undefined) continue;
    if (afterMs <= beforeMs || afterMs >= endMs) {
      const limits = endMs === Number.POSITIVE_INFINITY ? "" : ` and before schedule_to_close, ${endMs} ms`;
      const message = `the escalation never happens: it must be after ${beforeMs} ms${limits}`;
      report({ ...place, reason: "OUT_OF_RANGE", path: `${place.path}.after`, message, found: `${afterMs} ms` });
    }
    beforeMs = afterMs;
    const handsOver = assignees !== undefined || groups !== undefined;
    read.plans.push({ afterMs, handsOver });
    if (!handsOver) continue;
    const level = index + 1;
    Object.assign(read.types, { [`assignees_${level}`]: "repeated string", [`groups_${level}`]: "repeated string" });
    Object.assign(read.fields, { [`assignees_${level}`]: assignees, [`groups_${level}`]: groups });
  }
  return read;
}

/** Where a field of the message is written in the setting `human`. */
export const escalationPath = (field: string): string =>
  field.replace(
    /^(assignees|groups)_(\d+)$/,
    (_, name: string, level: string) => `escalations[${Number(level) - 1}].${name}`,
  );

/** Whom the assignment is for after so many escalations: whom the last one that hands it over names. */
export function namesAt(
  message: Readonly<Record<string, unknown>>,
  escalations: readonly EscalationPlan[],
  level: number,
): { assignees: unknown; groups: unknown } {
  let last = level;
  while (last > 0 && !escalations[last - 1]?.handsOver) last -= 1;
  const suffix = last === 0 ? "" : String(last);
  // Generated messages have names in camelCase, where digits follow without an underscore.
  return { assignees: message[`assignees${suffix}`] ?? [], groups: message[`groups${suffix}`] ?? [] };
}

interface Step {
  spec: StepSpec;
  index: number;
  path: string;
  needs: Set<number>;
  branch?: unknown;
  escalation?: { of: number; level: number };
}

/** Hangs steps on the escalations that name them. */
export function linkEscalations(steps: readonly Step[], report: Report): void {
  const byId = new Map(steps.map((step) => [step.spec.id, step]));
  for (const { spec, index, path } of steps) {
    for (const [nth, { steps: ids }] of (spec.human?.escalations ?? []).entries()) {
      for (const [n, id] of ids.entries()) {
        const field = "human.escalations";
        const place = { stepId: spec.id, path: `${path}.${field}[${nth}].steps[${n}]`, field };
        const step = byId.get(id);
        if (step === undefined) {
          const suggestion = nearestName(id, byId.keys()) ?? "";
          report({
            ...place,
            reason: "UNKNOWN_STEP",
            message: `there is no step "${id.slice(0, 80)}"`,
            found: id,
            suggestion,
          });
        } else if (step.branch !== undefined || step.escalation !== undefined || step.index === index) {
          const message = `step "${id}" can't hang on this escalation: it is on a branch or an escalation already, or is the step itself`;
          report({ ...place, reason: "CONFLICT", message, found: id });
        } else {
          step.escalation = { of: index, level: nth + 1 };
          step.needs.add(index);
        }
      }
    }
  }
}
