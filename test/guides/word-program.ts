/** Compiles a program, one step a line (`name = Verb field=value`, where `$name.field` is what an earlier step put out), to a chain. */
export function compileProgram(program: string): string {
  const expressionOf = (text: string) => {
    if (!text.startsWith("$")) return { literal: text };
    const path = text.slice(1);
    return { cel: path.startsWith("input.") ? path : `steps.${path.replace(".", ".output.")}` };
  };
  const lines = program.split("\n").filter((line) => line.trim() !== "");
  const steps = lines.map((line) => {
    const [, id, verb, fields = ""] = /^\s*(\w+)\s*=\s*(\w+)(.*)$/.exec(line) ?? [];
    const input = Object.fromEntries(
      [...fields.matchAll(/(\w+)=(\S+)/g)].map(([, name, text]) => [name, expressionOf(text!)]),
    );
    return { id, call: `acme.words.v1.WordActions/${verb}`, input };
  });
  const contract = { name: "acme.words.v1.Programs/Program", input: { name: "string" }, output: { text: "string" } };
  return JSON.stringify({ contract, steps, output: { text: { cel: `steps.${steps.at(-1)?.id}.output.text` } } });
}
