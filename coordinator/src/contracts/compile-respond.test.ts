/** Steps that answer, and assignments that escalate, as people write them: what they become, and what is said about their mistakes. */
import { formatChainDocument, locateChainProblem, parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import type { Scope } from "../engine/plan.js";
import { bytesToJson } from "./check.js";
import { type ChainEnvironment, type CompiledChain, compileChain } from "./compile-chain.js";
import { launchContracts } from "./launch.js";

const compile = (
  steps: string,
  { output = "", ...more }: Partial<ChainEnvironment> & { output?: string } = {},
): CompiledChain & { shown: string[] } => {
  const document = parseChainDocument(`contract:
  name: acme.v1.Chains/Answer
  input: { text: string, boss: string }
  output: { text: string, size: int32 }
steps:
${steps}
${output}`);
  if (document.spec === undefined) throw new Error(JSON.stringify(document.problems));
  expect(parseChainDocument(formatChainDocument(document.spec)).spec).toEqual(document.spec);
  const compiled = compileChain(document.spec, { contractFor: () => undefined, ...more });
  const shown = compiled.problems.map((problem) => locateChainProblem(problem, document, "chain.yaml"));
  return { ...compiled, shown };
};
const scope: Scope = {
  run: { id: "r", namespace: "n", method: "m", acceptedAtMs: 0 },
  input: { contract: "c", sizeBytes: 0, sha256: new Uint8Array(32), bytes: new Uint8Array(0) },
  outputs: [],
};

describe("respond", () => {
  const ask = "  - { id: ask, signal: { output: { item: string }, answer: { cents: int32 } } }";

  it("gives the chain's output to its caller, in place of the chain's own word", () => {
    const { plan, contract, shown, pins, declared } = compile(
      "  - { id: tell, respond: { output: { text: \"'done'\", size: 3 } } }",
    );
    expect(shown).toEqual([]);
    const [step] = plan!.steps;
    expect(step).toMatchObject({ wait: { kind: "respond" }, contract: contract!.fingerprint });
    expect(pins).toEqual({ "acme.v1.Chains/Answer": contract!.fingerprint });
    expect(declared).toEqual([]);
    const bound = step!.bindInput(scope);
    expect(bound.kind === "value" && bytesToJson(contract!, "output", bound.value)).toEqual({ text: "done", size: 3 });
  });

  it("answers a signal with what that declares, behind it", () => {
    const { plan, shown, edges } = compile(
      `${ask}\n  - { id: tell, respond: { to: ask, output: { cents: size(steps.ask.output.item) } } }`,
      { output: "output: { text: \"'x'\" }" },
    );
    expect(shown).toEqual([]);
    expect(plan!.steps.map(({ wait }) => wait)).toEqual([
      { kind: "signal", mailbox: "signal:ask", answered: true },
      { kind: "respond", to: 0 },
    ]);
    expect(edges).toEqual([{ from: "ask", to: "tell" }]);
  });

  it.each([
    [
      "a field of the wrong type",
      `${ask}\n  - { id: tell, respond: { to: ask, output: { cents: steps.ask.output.item } } }`,
      "step tell, cents: tellResponse.cents is int32, and the expression gives string",
    ],
    [
      "an unknown field of the output",
      "  - { id: tell, respond: { output: { txt: \"'x'\" } } }",
      'chain.yaml:6:43 step tell, txt: AnswerResponse has no field "txt"; did you mean "text"?',
    ],
    [
      "a signal that there is not",
      `${ask}\n  - { id: tell, respond: { to: asked, output: {} } }`,
      'chain.yaml:7:32 step tell, respond.to: there is no signal step "asked" with an answer',
    ],
    ["a promise that nobody keeps", ask, "no step answers the signal"],
    [
      "two signals of one name with different answers",
      `${ask}
  - { id: again, signal: { name: ask, output: { item: string }, answer: { cents: string } } }
  - { id: one, respond: { to: ask, output: {} } }
  - { id: two, respond: { to: again, output: {} } }`,
      'step "ask" answers the same signal with another type',
    ],
    [
      "settings of calls",
      "  - { id: tell, respond: { output: {} }, retry: { max_attempts: 3 } }",
      '"retry" means nothing beside "respond"',
    ],
    [
      "a fan-out",
      "  - { id: tell, respond: { output: {} }, each: { items: '[1]' } }",
      'a fan-out can\'t have "respond"',
    ],
  ])("refuses %s", (_, steps, message) => {
    expect(compile(steps).shown.join("\n")).toContain(message);
  });
});

describe("escalations", () => {
  const human = (escalations: string, more = "schedule_to_close: 4h") => `  - id: ask
    human:
      title: "'Fix ' + input.text"
      assignees: "[input.boss]"
      output: { fixed: bool }
      escalations: ${escalations}
    ${more}
  - { id: page, when: input.text != '', wait: { duration: 1s } }`;
  const output = "output: { text: \"'x'\" }";

  it("say who is next, and which steps begin", () => {
    const { plan, shown, edges } = compile(
      human(
        "[{ after: 15m, groups: \"['leads']\", steps: [page] }, { after: 1h, steps: [] , assignees: \"['cto']\" }]",
      ),
      { output },
    );
    expect(shown).toEqual([]);
    const [ask, page] = plan!.steps;
    if (ask!.wait?.kind !== "human") throw new Error("no human step");
    expect(ask!.wait.escalations).toEqual([
      { afterMs: 900_000, handsOver: true },
      { afterMs: 3_600_000, handsOver: true },
    ]);
    const bound = ask!.bindInput(scope);
    if (bound.kind !== "value") throw new Error(JSON.stringify(bound));
    const terms = [0, 1, 2].map((level) => ask!.wait?.kind === "human" && ask!.wait.read(bound.value, level));
    expect(terms).toMatchObject([
      { assignees: [""], groups: [] },
      { assignees: [], groups: ["leads"], escalated: 1 },
      { assignees: ["cto"], groups: [], escalated: 2 },
    ]);
    expect(page!.escalation).toEqual({ of: 0, level: 1 });
    expect(edges).toEqual([{ from: "ask", to: "page" }]);
  });

  it.each([
    ["an escalation that does nothing", "[{ after: 1m }]", "the escalation does nothing"],
    ["one without a time", "[{ groups: \"['x']\" }]", "nothing says when it happens"],
    ["one behind the deadline", "[{ after: 5h, groups: \"['x']\" }]", "the escalation never happens"],
    [
      "one before the one before",
      "[{ after: 2m, groups: \"['x']\" }, { after: 1m, groups: \"['y']\" }]",
      "the escalation never happens",
    ],
    ["an unknown step", "[{ after: 1m, steps: [pgae] }]", 'there is no step "pgae"'],
    ["itself", "[{ after: 1m, steps: [ask] }]", 'step "ask" can\'t hang on this escalation'],
    ["people who are no list", "[{ after: 1m, groups: input.text }]", "human.escalations[0]"],
  ])("refuse %s", (_, escalations, message) => {
    const { shown, problems } = compile(human(escalations), { output });
    expect(`${shown.join("\n")} ${problems.map(({ path }) => path).join(" ")}`).toContain(message);
  });

  it("keep the form from steps that begin before it is filled in", () => {
    const steps = human("[{ after: 1m, steps: [page] }]").replace("input.text != ''", "steps.ask.output.fixed");
    expect(compile(steps, { output }).shown.join("\n")).toContain("has(steps.ask.output)");
  });
});

describe("a step that launches", () => {
  const launches = (call: string, more = "") =>
    compile(`  - { id: run, call: ${call}, input: { ${more} } }`, {
      contractFor: (method) => launchContracts().get(method),
      isChain: () => false,
      output: "output: { text: string(steps.run.output.output.text) }",
    });

  it("is a run of its own, and its output is JSON", () => {
    const { plan, shown } = launches(
      "taskmesh.launch.v1.LaunchActions/StartChain",
      "chain: \"'a.v1.B/C'\", input: \"{'text': input.text}\"",
    );
    expect(shown).toEqual([]);
    expect(plan!.steps[0]).toMatchObject({ child: { onParentClose: "cancel", launches: "chain" } });
  });

  it("needs no worker's settings", () => {
    const document = "taskmesh.launch.v1.LaunchActions/StartAction, task_queue: q";
    expect(launches(document).shown.join("\n")).toContain("is carried out by the mesh");
  });
});
