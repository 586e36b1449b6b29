/** What several calls check alike. */
import { hasControl } from "./given-value.js";

/** Bounds of labels and priorities. */
const labelBounds = { labels: 32, labelChars: 128, priority: 100 };

type Bad = (field: string, message: string) => void;

/** Checks the labels of a run. */
export function checkLabels(labels: Readonly<Record<string, string>>, field: string, bad: Bad): void {
  const entries = Object.entries(labels);
  const max = labelBounds.labelChars;
  if (entries.length > labelBounds.labels)
    bad(field, `are ${entries.length}; at most ${labelBounds.labels} are allowed`);
  for (const [key, value] of entries) {
    if (key === "" || key.length > max || value.length > max || hasControl(key + value)) {
      bad(
        `${field}["${key.slice(0, 32)}"]`,
        `key and value must be 1 (0 for the value) to ${max} printable characters`,
      );
    }
  }
}

/** Checks the priority of a run. */
export function checkPriority(priority: number, bad: Bad): void {
  const max = labelBounds.priority;
  if (Math.abs(priority) > max) bad("priority", `is ${priority}; it must be between -${max} and ${max}`);
}
