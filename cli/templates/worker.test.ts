import assert from "node:assert/strict";
import { test } from "node:test";
import { runAction } from "@taskmesh/action-sdk/testing";
import { score } from "./worker.js";

test("counts the words of a text", async () => {
  const { output } = await runAction(score, { text: "a b" });
  assert.equal(output?.words, 2);
});

test("finds no words in an empty text", async () => {
  const { output } = await runAction(score, { text: "" });
  assert.equal(output?.words, 0);
});
