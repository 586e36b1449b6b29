/** Lines that scroll by, with a bar below them on a terminal and a line every tenth of the way elsewhere. */

const barWidth = 40;

export interface Screen {
  line(text: string): void;
  progress(done: number, all: number): void;
}

export function createScreen(stream: NodeJS.WriteStream = process.stdout): Screen {
  const live = stream.isTTY === true && process.env.TERM !== "dumb";
  let bar = "";
  const wipe = live ? "\r\u001b[K" : "";
  const shorten = (text: string): string =>
    live && stream.columns > 0
      ? text
          .split("\n")
          .map((line) => (line.length > stream.columns ? `${line.slice(0, stream.columns - 1)}…` : line))
          .join("\n")
      : text;
  return {
    line: (text) => void stream.write(`${wipe}${shorten(text)}\n${bar}`),
    progress(done, all) {
      const filled = Math.round((done / all) * barWidth);
      const shown = `${"█".repeat(filled)}${"░".repeat(barWidth - filled)} ${done}/${all}`;
      if (live) {
        bar = done === all ? "" : shown;
        stream.write(`${wipe}${bar}`);
      } else if (Math.floor((done * 10) / all) > Math.floor(((done - 1) * 10) / all)) {
        stream.write(`${shown}\n`);
      }
    },
  };
}
