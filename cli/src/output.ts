/**
 * What commands print: tables and sentences for people, one JSON document (or one per line) for programs.
 *
 * O1. With `--json` stdout holds JSON and nothing else; everything said to a person goes to stderr.
 * O2. Text that came from the mesh is never trusted by the terminal: control characters are shown, not sent.
 */
import Table from "cli-table3";
import pc from "picocolors";
import type { TerminalFacts } from "./config.js";

/** Colours that follow the terminal's facts. */
export type Colors = ReturnType<typeof pc.createColors>;

export interface Output {
  readonly json: boolean;
  readonly colors: Colors;
  readonly terminal: TerminalFacts;
  /** A line for people on stdout; with `--json` it is left out. */
  line(text?: string): void;
  /** A line on stderr. */
  note(text: string): void;
  /** A document for programs; without `--json` it is left out. */
  document(value: unknown): void;
  /** A table for people, cut to the terminal's width; with `--json` it is left out. */
  table(head: string[], rows: string[][]): void;
  /** Text for both: stdout exactly as it is. */
  raw(text: string): void;
}

/** Columns between two cells. */
const gap = 2;
/** Below this a cell says nothing, so a very narrow terminal wraps instead. */
const cellMin = 6;

/** Text from elsewhere, with control characters made visible (O2). Tabs and, where asked for, line ends stay. */
export function plain(text: string, { lines = false } = {}): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it looks for
  return text.replace(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, (char) => {
    if (lines && char === "\n") return char;
    const code = char.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
  });
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: our own colour codes
const visibleLength = (text: string): number => text.replace(/\u001b\[[0-9;]*m/g, "").length;

/** Widths that fit into `total`: the widest columns give way first, none below `cellMin`. */
export function fitColumns(natural: number[], total: number): number[] {
  const widths = [...natural];
  const room = total - gap * (widths.length - 1);
  let excess = widths.reduce((sum, width) => sum + width, 0) - room;
  while (excess > 0) {
    const widest = Math.max(...widths);
    if (widest <= cellMin) break;
    widths[widths.indexOf(widest)] = widest - 1;
    excess -= 1;
  }
  return widths;
}

/** The table as text without frame. `width` undefined: as wide as it wants. */
export function drawTable(head: string[], rows: string[][], colors: Colors, width?: number): string {
  const natural = head.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => visibleLength(row[column] ?? ""))),
  );
  const widths = width === undefined ? natural : fitColumns(natural, width);
  const none = "";
  const table = new Table({
    head: head.map((title) => colors.dim(title)),
    colWidths: widths.map((size, column) => (column === widths.length - 1 ? size : size + gap)),
    style: { head: [], border: [], "padding-left": 0, "padding-right": 0 },
    chars: {
      top: none,
      "top-mid": none,
      "top-left": none,
      "top-right": none,
      bottom: none,
      "bottom-mid": none,
      "bottom-left": none,
      "bottom-right": none,
      left: none,
      "left-mid": none,
      mid: none,
      "mid-mid": none,
      right: none,
      "right-mid": none,
      middle: none,
    },
  });
  for (const row of rows) table.push(row.map((cell, column) => cutCell(cell, widths[column] ?? 0)));
  return table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
}

/** A cell that is too long ends in "…"; its colour is dropped rather than cut in the middle of a code. */
function cutCell(cell: string, width: number): string {
  if (visibleLength(cell) <= width) return cell;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: our own colour codes
  return `${cell.replace(/\u001b\[[0-9;]*m/g, "").slice(0, Math.max(0, width - 1))}…`;
}

/** The output of one command. */
export function createOutput(
  json: boolean,
  terminal: TerminalFacts,
  stdout: { write(text: string): unknown } = process.stdout,
  stderr: { write(text: string): unknown } = process.stderr,
): Output {
  const colors = pc.createColors(terminal.color);
  return {
    json,
    colors,
    terminal,
    line: (text = "") => void (json || stdout.write(`${text}\n`)),
    note: (text) => void stderr.write(`${text}\n`),
    document: (value) => void (json && stdout.write(`${JSON.stringify(value)}\n`)),
    table: (head, rows) => void (json || stdout.write(`${drawTable(head, rows, colors, terminal.width)}\n`)),
    raw: (text) => void stdout.write(text),
  };
}
