/**
 * Completion scripts, made from the command tree itself so that they can't fall behind it.
 *
 * Each script holds a table from command path ("runs start") to the words that may follow it; no process is started on TAB.
 */
import type { CommandUnknownOpts } from "@commander-js/extra-typings";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

interface Node {
  /** Words after the program's name, "" for the program itself. */
  path: string;
  words: { word: string; about: string }[];
}

/** The first sentence of a description, without what shells would read. */
const about = (text: string): string => text.replace(/[`'"$\\\n:]/g, " ").trim();

function collect(command: CommandUnknownOpts, path: string, inherited: Node["words"]): Node[] {
  const options = command.options
    .filter((option) => !option.hidden && option.long)
    .map((option) => ({ word: option.long as string, about: about(option.description) }));
  const all = path === "" ? options : [...options, ...inherited];
  const help = { word: "--help", about: "show what a command does" };
  const children = command.commands.filter((child) => child.name() !== "help");
  const words = children.map((child) => ({ word: child.name(), about: about(child.description()) }));
  const own: Node = { path, words: [...words, ...all, help] };
  const rest = children.flatMap((child) =>
    collect(child, path === "" ? child.name() : `${path} ${child.name()}`, path === "" ? options : inherited),
  );
  return [own, ...rest];
}

/** Shell code, the same in bash and zsh, that sets `path` to the command words before the cursor. */
const findPath = (nodes: Node[]): string => `  local path="" word
  for word in "\${before[@]}"; do
    case "\${path:+$path }$word" in
${nodes
  .filter((node) => node.path !== "")
  .map((node) => `      "${node.path}") path="${node.path}" ;;`)
  .join("\n")}
    esac
  done`;

function bashScript(nodes: Node[]): string {
  return `# bash completion of taskmesh
_taskmesh() {
  local current="\${COMP_WORDS[COMP_CWORD]}" words=""
  local -a before=("\${COMP_WORDS[@]:1:COMP_CWORD-1}")
${findPath(nodes)}
  case "$path" in
${nodes.map((node) => `    "${node.path}") words="${node.words.map(({ word }) => word).join(" ")}" ;;`).join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _taskmesh taskmesh
`;
}

function zshScript(nodes: Node[]): string {
  const list = (node: Node) => node.words.map(({ word, about: text }) => `'${word}:${text}'`).join(" ");
  return `#compdef taskmesh
_taskmesh() {
  local -a before=("\${(@)words[2,CURRENT-1]}") found
${findPath(nodes)}
  case "$path" in
${nodes.map((node) => `    "${node.path}") found=(${list(node)}) ;;`).join("\n")}
  esac
  _describe 'taskmesh' found || _files
}
compdef _taskmesh taskmesh
`;
}

function fishScript(nodes: Node[]): string {
  const paths = nodes.filter((node) => node.path !== "").map((node) => `'${node.path}'`);
  const lines = nodes.flatMap((node) =>
    node.words.map(({ word, about: text }) => {
      const given = word.startsWith("--") ? `-l ${word.slice(2)}` : `-f -a ${word}`;
      return `complete -c taskmesh -n '__taskmesh_at "${node.path}"' ${given} -d '${text}'`;
    }),
  );
  return `# fish completion of taskmesh
function __taskmesh_at
  set -l found ""
  for word in (commandline -opc)[2..-1]
    set -l next (string trim "$found $word")
    contains -- $next ${paths.join(" ")}; and set found $next
  end
  test "$found" = "$argv[1]"
end
${lines.join("\n")}
`;
}

/** The completion script of the whole program for one shell. */
export function completionScript(program: CommandUnknownOpts, shell: Shell): string {
  const nodes = collect(program, "", []);
  switch (shell) {
    case "bash":
      return bashScript(nodes);
    case "zsh":
      return zshScript(nodes);
    case "fish":
      return fishScript(nodes);
  }
}
