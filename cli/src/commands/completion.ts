import { Argument, Command, type CommandUnknownOpts } from "@commander-js/extra-typings";
import { completionScript, type Shell, shells } from "../completion-script.js";

/** `taskmesh completion <shell>`: a script for the shell to source. */
export const completion = () =>
  new Command("completion")
    .description("print a script that completes commands and options in your shell")
    .addArgument(new Argument("<shell>").choices(shells))
    .addHelpText(
      "after",
      `
  bash   echo 'source <(npx taskmesh completion bash)' >> ~/.bashrc
  zsh    echo 'source <(npx taskmesh completion zsh)' >> ~/.zshrc
  fish   npx taskmesh completion fish > ~/.config/fish/completions/taskmesh.fish`,
    )
    .action((shell, _options, command: CommandUnknownOpts) => {
      let root = command;
      while (root.parent) root = root.parent;
      process.stdout.write(completionScript(root, shell as Shell));
    });
