/** The demo's own worker: one action, served from a process of its own that the demo kills and starts again. */
import { setTimeout as pause } from "node:timers/promises";
import { defineAction, startWorker } from "@taskmesh/action-sdk";
import { descriptors } from "./gen/descriptors.js";
import { PageActionsService } from "./gen/pages.js";

/** As long as a call to a slow service would take: so that there is work in hand whenever the process is killed. */
const workMs = 600;
const wordsPerMinute = 230;

const extract = defineAction(PageActionsService.extract, async ({ text }, { signal }) => {
  await pause(workMs, undefined, { signal });
  const words = text.split(/\s+/).filter((word) => word !== "").length;
  const lead = /^.*?[.!?](?=\s|$)/s.exec(text)?.[0] ?? text.slice(0, 120);
  return { words, lead, minutes: Math.ceil(words / wordsPerMinute) };
});

await startWorker({ descriptors, actions: [extract], slots: 8, labels: { role: "demo" } });
