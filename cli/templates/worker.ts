import { realpathSync } from "node:fs";
import { defineAction, startWorker } from "@taskmesh/action-sdk";
import { descriptors } from "./gen/descriptors.js";
import { PageActionsService } from "./gen/pages.js";

export const score = defineAction(PageActionsService.score, async ({ text }) => ({
  words: text.split(/\s+/).filter((word) => word !== "").length,
}));

// Serve the actions when this file is the program, and not when the test imports it.
if (realpathSync(process.argv[1] ?? "") === import.meta.filename) {
  await startWorker({ descriptors, actions: [score] });
}
