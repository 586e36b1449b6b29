/** A thread of the pool: answers each message with the outcome of its task. */
import { parentPort } from "node:worker_threads";
import { performTask, type TaskCall, type TaskReply } from "./tasks.js";

const port = parentPort;
if (!port) throw new Error("thread.ts runs in a worker thread only");
port.on("message", ({ name, input }: TaskCall) => port.postMessage(performTask(name, input)));
port.postMessage({ kind: "ready" } satisfies TaskReply);
