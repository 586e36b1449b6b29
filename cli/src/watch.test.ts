import { describe, expect, it } from "vitest";
import { createLivePicture } from "./watch.js";

/** The rows that a terminal shows after it was sent `sent`: cursor up, return, clear to the end of line and screen. */
function terminal(sent: string): string[] {
  const rows: string[] = [""];
  let row = 0;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: what the picture is drawn with
  for (const [part] of sent.matchAll(/\u001b\[\d*[AKJ]|\n|\r|[^\u001b\n\r]+/g)) {
    if (part === "\n") row += 1;
    else if (part.endsWith("A") && part.startsWith("\u001b")) row -= Number(part.slice(2, -1));
    else if (part === "\u001b[J") rows.length = row;
    else if (part === "\u001b[K" || part === "\r") continue;
    else rows[row] = part;
    rows[row] ??= "";
  }
  return rows;
}

describe("a live picture", () => {
  it("is redrawn in place, also when it shrinks, and stands when it is finished", () => {
    let sent = "";
    const picture = createLivePicture((text) => {
      sent += text;
    });
    picture.draw(["run", "a", "b"]);
    picture.draw(["run", "A"]);
    expect(terminal(sent)).toEqual(["run", "A", ""]);
    picture.finish();
    picture.draw(["next"]);
    expect(terminal(sent)).toEqual(["run", "A", "next", ""]);
  });
});
