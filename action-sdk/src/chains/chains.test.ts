import { ChainSpec, launch } from "@taskmesh/proto";
import { parseChainDocument } from "@taskmesh/runtime";
import { describe, expect, it } from "vitest";
import { PageActionsService } from "../../../test/fixtures/page-actions.js";
import type { MethodEntry } from "../define.js";
import { cel, chain, type GivenFields, isChain, type Ref, undo } from "./index.js";

/** A contract with every kind of field, as ts-proto would generate it. */
interface Rich {
  maxSize: number;
  total: bigint;
  data: Uint8Array;
  tags: string[];
  labels: { [key: string]: string };
  link?: { url: string; weight: number } | undefined;
  took?: { seconds: bigint; nanos: number } | undefined;
  body?: { $case: "text"; value: string } | { $case: "form"; value: { fields: string[] } } | undefined;
}
const rich = { path: "/acme.rich.v1.RichActions/Do" } as MethodEntry<Rich, Rich>;

const built = (input: GivenFields<Rich>) =>
  (
    chain("a.v1.C/D", { input: { text: "string" }, output: {} }, ({ step }) => {
      step("do", rich, input);
      return {};
    }).json as { steps: { input: object }[] }
  ).steps[0]!.input;

describe("a chain in TypeScript", () => {
  it("is the same ChainSpec as in YAML", () => {
    const scored = chain(
      "acme.pages.v1.Pages/Check",
      {
        description: "Counts words.",
        input: { page_text: "string", limit: "int64" },
        output: { words: "int32", many: "bool" },
        runTimeout: "90s",
        onUnhandled: "FAIL",
      },
      ({ input, run, step }) => {
        const first = step("first", PageActionsService.score, { text: input.page_text });
        const second = step(
          "second",
          PageActionsService.score,
          { text: cel`${input.page_text} + ${run.acceptedAt}.getHours() + ${"x\n"}` },
          {
            when: cel`${first.output.words} > ${3}`,
            needs: [first],
            retry: { linear: { initial: "1s", increment: "500ms", cap: "1m" }, jitter: 0.5, nonRetryable: ["GONE"] },
            scheduleToStart: "1h",
            startToClose: "20s",
            heartbeat: "5s",
            scheduleToClose: "2h30m",
            taskQueue: "slow",
            priority: -5,
          },
        );
        return { words: first.output.words, many: cel`has(${second.output})` };
      },
    );
    const { spec, problems } = parseChainDocument(`
description: Counts words.
contract:
  name: acme.pages.v1.Pages/Check
  input: { page_text: string, limit: int64 }
  output: { words: int32, many: bool }
run_timeout: 90s
on_unhandled: FAIL
steps:
  - { id: first, call: acme.pages.v1.PageActions/Score, input: { text: input.page_text } }
  - id: second
    call: acme.pages.v1.PageActions/Score
    input: { text: 'input.page_text + run.accepted_at.getHours() + "x\\n"' }
    when: steps.first.output.words > 3
    needs: [first]
    retry: { linear: { initial: 1s, increment: 500ms, cap: 1m }, jitter: 0.5, non_retryable: [GONE] }
    schedule_to_start: 1h
    start_to_close: 20s
    heartbeat: 5s
    schedule_to_close: 2h30m
    task_queue: slow
    priority: -5
output: { words: steps.first.output.words, many: has(steps.second.output) }
`);
    expect(problems).toEqual([]);
    expect(ChainSpec.toJSON(scored.spec)).toEqual(ChainSpec.toJSON(spec!));
    expect(scored.name).toBe("acme.pages.v1.Pages/Check");
    expect(isChain(scored)).toBe(true);
    expect(isChain({ name: "x" })).toBe(false);
  });

  it("implements a registered rpc, and can be a step of another", () => {
    const inner = chain(PageActionsService.score, {}, ({ input, step }) => ({
      words: step("again", PageActionsService.score, { text: input.text }).output.words,
    }));
    const outer = chain("a.v1.C/Outer", { input: { text: "string" }, output: { n: "int32" } }, ({ input, step }) => ({
      n: step("inner", inner, { text: input.text }).output.words,
    }));
    expect(inner.json["contract"]).toEqual({ name: "acme.pages.v1.PageActions/Score" });
    expect(outer.json["steps"]).toEqual([
      { id: "inner", call: "acme.pages.v1.PageActions/Score", input: { text: { cel: "input.text" } } },
    ]);
  });

  it("writes literals of every kind, and lists and maps with expressions in them as CEL", () => {
    expect(
      built({
        maxSize: 1.5,
        total: 2n ** 60n,
        data: Buffer.from("ab"),
        tags: ["a", cel`input.text`],
        labels: { a: "b" },
        link: { url: "u" },
        form: { fields: ["f"] },
      }),
    ).toEqual({
      max_size: { literal: 1.5 },
      total: { literal: "1152921504606846976" },
      data: { literal: "YWI=" },
      tags: { cel: '["a", (input.text)]' },
      labels: { literal: { a: "b" } },
      link: { literal: { url: "u" } },
      form: { literal: { fields: ["f"] } },
    });
  });

  it("reads nested fields, items, entries and members of oneofs by the names of the .proto file", () => {
    const { json } = chain("a.v1.C/D", { input: {}, output: { o: "string" }, names: { weight: "w_8" } }, ({ step }) => {
      const { output } = step("do", rich, {});
      step("more", rich, {
        maxSize: output.maxSize,
        tags: cel`[${output.tags[0]}, ${output.labels["x y"]}, ${output.labels["z"]}, ${output.text}]`,
        text: output.form.fields[2],
        link: output.link,
      });
      return { o: cel`string(${output.link.weight})` };
    });
    expect((json["steps"] as { input: object }[])[1]!.input).toEqual({
      max_size: { cel: "steps.do.output.max_size" },
      tags: {
        cel: '[steps.do.output.tags[0], steps.do.output.labels["x y"], steps.do.output.labels.z, steps.do.output.text]',
      },
      text: { cel: "steps.do.output.form.fields[2]" },
      link: { cel: "steps.do.output.link" },
    });
    expect(json["output"]).toEqual({ o: { cel: "string(steps.do.output.link.w_8)" } });
  });

  it("waits for time, for signals and for callbacks as in YAML", () => {
    const inner = chain("a.v1.C/Inner", { input: {}, output: {} }, ({ wait }) => {
      wait("w", { duration: "1s" });
      return {};
    });
    const types = { input: { pause: "google.protobuf.Duration" }, output: { note: "string", stars: "int32" } } as const;
    const { spec } = chain("a.v1.C/Waits", types, ({ input, run, step, wait, signal, callback }) => {
      const first = wait("first", { duration: "1h30m" });
      const second = wait("second", { duration: input.pause }, { needs: [first] });
      wait("third", { until: cel`${run.acceptedAt} + duration("24h")` }, { when: cel`${first.output} != null` });
      const rated = signal("rated", { stars: "int32" }, { name: "rating", scheduleToClose: "20h", needs: [second] });
      const answer = callback("answer", { note: "string" }, { scheduleToClose: "2h" });
      step("ask", PageActionsService.score, { text: answer.url });
      step("go", inner, {}, { parentClose: "ABANDON" });
      return { note: answer.output.note, stars: rated.output.stars };
    });
    const yaml = parseChainDocument(`
contract:
  name: a.v1.C/Waits
  input: { pause: google.protobuf.Duration }
  output: { note: string, stars: int32 }
steps:
  - { id: first, wait: { duration: 1h30m } }
  - { id: second, wait: { duration: input.pause }, needs: [first] }
  - { id: third, wait: { until: 'run.accepted_at + duration("24h")' }, when: steps.first.output != null }
  - { id: rated, signal: { name: rating, output: { stars: int32 } }, schedule_to_close: 20h, needs: [second] }
  - { id: answer, callback: { output: { note: string } }, schedule_to_close: 2h }
  - { id: ask, call: acme.pages.v1.PageActions/Score, input: { text: callback.answer.url } }
  - { id: go, call: a.v1.C/Inner, parent_close: ABANDON }
output: { note: steps.answer.output.note, stars: steps.rated.output.stars }
`);
    expect(yaml.problems).toEqual([]);
    expect(ChainSpec.toJSON(spec)).toEqual(ChainSpec.toJSON(yaml.spec!));
  });

  it("fans out, branches, races, repeats, asks people and catches failures as in YAML", () => {
    const types = {
      input: { texts: "repeated string", names: "map<string, string>", managers: "repeated string" },
      output: { words: "int32", branch: "int32" },
    } as const;
    const settings = { ...types, onUnhandled: "BREAK", brokenTtl: "48h", runTimeoutFrom: "FIRST_START" } as const;
    const { score } = PageActionsService;
    const { spec } = chain("a.v1.C/Flow", settings, ({ input, step, each, choose, human }) => {
      const all = each("all", score, { items: input.texts, maxParallel: 9, toleratedShare: 0.5 }, (item) => ({
        text: cel`${item.value} + string(${item.index})`,
      }));
      const named = each("named", score, { entries: input.names, toleratedFailures: 2 }, ({ key }) => ({ text: key }));
      const polled = step(
        "polled",
        score,
        { text: "x" },
        {
          compensate: undo(score, (output, error) => ({ text: cel`string(${output.words}) + ${error.reason}` }), {
            retry: { fixed: { delay: "100ms" } },
            scheduleToClose: "2h",
          }),
          repeat: { until: (output) => cel`${output.words} >= ${3}`, delay: "200ms", maxRounds: 20 },
          onFailure: [
            { reasons: ["GONE"], output: (error) => ({ words: cel`size(${error.message})` }) },
            { continue: true },
          ],
        },
      );
      const route = choose(
        "route",
        [
          {
            when: cel`${all.output[0]!.words} > size(${named.output})`,
            steps: () => {
              step("long", score, { text: "long" });
              choose("deeper", [{ when: cel`true`, steps: () => step("deep", score, { text: "deep" }) }]);
            },
          },
        ],
        () => step("short", score, { text: "short" }),
        { needs: [polled] },
      );
      const asked = human(
        "asked",
        { title: cel`"Approve " + ${input.texts[0]}`, assignees: input.managers, groups: ["finance"] },
        { approved: "bool" },
        { scheduleToClose: "72h", onFailure: [{ output: () => ({ approved: false }) }] },
      );
      const last = step("last", score, { text: "x" }, { join: "FIRST_SUCCESS", needs: [route, asked] });
      return { words: last.output.words, branch: route.output.case };
    });
    const yaml = parseChainDocument(`
contract:
  name: a.v1.C/Flow
  input: { texts: repeated string, names: "map<string, string>", managers: repeated string }
  output: { words: int32, branch: int32 }
on_unhandled: BREAK
broken_ttl: 48h
run_timeout_from: FIRST_START
steps:
  - id: all
    call: acme.pages.v1.PageActions/Score
    each: { items: input.texts, max_parallel: 9, tolerated_share: 0.5 }
    input: { text: each.value + string(each.index) }
  - id: named
    call: acme.pages.v1.PageActions/Score
    each: { entries: input.names, tolerated_failures: 2 }
    input: { text: each.key }
  - id: polled
    call: acme.pages.v1.PageActions/Score
    input: { text: { literal: x } }
    repeat: { until: steps.polled.output.words >= 3, delay: 200ms, max_rounds: 20 }
    compensate:
      call: acme.pages.v1.PageActions/Score
      input: { text: string(steps.polled.output.words) + error.reason }
      retry: { fixed: { delay: 100ms } }
      schedule_to_close: 2h
    on_failure:
      - { reasons: [GONE], output: { words: size(error.message) } }
      - { continue: true }
  - id: route
    switch:
      cases: [{ when: "steps.all.output[0].words > size(steps.named.output)", steps: [long, deeper] }]
      otherwise: [short]
    needs: [polled]
  - { id: long, call: acme.pages.v1.PageActions/Score, input: { text: { literal: long } } }
  - id: deeper
    switch: { cases: [{ when: "true", steps: [deep] }] }
  - { id: deep, call: acme.pages.v1.PageActions/Score, input: { text: { literal: deep } } }
  - { id: short, call: acme.pages.v1.PageActions/Score, input: { text: { literal: short } } }
  - id: asked
    human:
      title: '"Approve " + input.texts[0]'
      assignees: input.managers
      groups: { literal: [finance] }
      output: { approved: bool }
    schedule_to_close: 72h
    on_failure: [{ output: { approved: { literal: false } } }]
  - { id: last, call: acme.pages.v1.PageActions/Score, input: { text: { literal: x } }, join: FIRST_SUCCESS, needs: [route, asked] }
output: { words: steps.last.output.words, branch: steps.route.output.case }
`);
    expect(yaml.problems).toEqual([]);
    expect(ChainSpec.toJSON(spec)).toEqual(ChainSpec.toJSON(yaml.spec!));
  });

  it("answers callers and senders, escalates and launches as in YAML", () => {
    const types = { input: { text: "string" }, output: { words: "int32" } } as const;
    const { score } = PageActionsService;
    const { spec } = chain("a.v1.C/Answers", types, ({ input, step, signal, answer, respond, human }) => {
      const coupon = signal("coupon", { code: "string" }, { answer: { cents: "int64" } });
      answer("told", coupon, { cents: cel`size(${coupon.output.code})` });
      const fast = step("fast", score, { text: input.text });
      const done = respond("done", { words: fast.output.words });
      step("slow", score, { text: "slow" }, { needs: [done] });
      human(
        "ask",
        {
          title: "Go on?",
          escalations: [
            { after: "15m", steps: () => step("page", score, { text: "page" }) },
            { after: "1h", groups: ["leads"], assignees: cel`[${input.text}]` },
          ],
        },
        { yes: "bool" },
        { scheduleToClose: "4h" },
      );
      const launched = step("launched", launch.LaunchActionsService.startChain, {
        document: input.text,
        input: cel`{'text': ${input.text}}`,
      });
      step("last", score, { text: cel`string(${launched.output.output})` });
      // @ts-expect-error the signal declares another type
      answer("wrong", coupon, { cents: "many" });
      // @ts-expect-error the chain puts out no such field
      respond("wrong2", { word: 1 });
      return {};
    });
    const yaml = parseChainDocument(`
contract: { name: a.v1.C/Answers, input: { text: string }, output: { words: int32 } }
steps:
  - { id: coupon, signal: { output: { code: string }, answer: { cents: int64 } } }
  - { id: told, respond: { to: coupon, output: { cents: size(steps.coupon.output.code) } } }
  - { id: fast, call: acme.pages.v1.PageActions/Score, input: { text: input.text } }
  - { id: done, respond: { output: { words: steps.fast.output.words } } }
  - { id: slow, call: acme.pages.v1.PageActions/Score, input: { text: { literal: slow } }, needs: [done] }
  - id: ask
    human:
      title: { literal: "Go on?" }
      output: { yes: bool }
      escalations:
        - { after: 15m, steps: [page] }
        - { after: 1h, groups: { literal: [leads] }, assignees: "[input.text]" }
    schedule_to_close: 4h
  - { id: page, call: acme.pages.v1.PageActions/Score, input: { text: { literal: page } } }
  - id: launched
    call: taskmesh.launch.v1.LaunchActions/StartChain
    input: { document: input.text, input: "{'text': input.text}" }
  - { id: last, call: acme.pages.v1.PageActions/Score, input: { text: string(steps.launched.output.output) } }
  - { id: wrong, respond: { to: coupon, output: { cents: { literal: many } } } }
  - { id: wrong2, respond: { output: { word: 1 } } }
`);
    expect(yaml.problems).toEqual([]);
    expect(ChainSpec.toJSON(spec)).toEqual(ChainSpec.toJSON(yaml.spec!));
  });

  it("takes steps of any kind as the JSON of a StepSpec", () => {
    const { json } = chain("a.v1.C/D", { input: { n: "int32" }, output: { n: "int32" } }, ({ input, add }) => {
      const one = add<{ words: number }>({
        id: "one",
        call: "x.v1.Y/Z",
        input: { n: input.n, m: { literal: 1 } },
        when: cel`${input.n} > 1`,
      });
      return { n: one.output.words };
    });
    expect(json["steps"]).toEqual([
      { id: "one", call: "x.v1.Y/Z", input: { n: { cel: "input.n" }, m: { literal: 1 } }, when: "input.n > 1" },
    ]);
  });

  it("writes fan-outs within fan-outs, over forms and pauses, and undos of their items", () => {
    const { score } = PageActionsService;
    const types = {
      input: { texts: "repeated string", names: "map<string, string>" },
      output: { n: "int32" },
    } as const;
    const { json } = chain("a.v1.C/Lists", types, ({ input, each, eachHuman, eachWait }) => {
      const words = each(
        "words",
        score,
        { items: input.texts, each: { items: (text) => cel<string[]>`${text.value}.split(' ')`, maxParallel: 3 } },
        ({ value, outer }) => ({ text: cel`string(${outer.index}) + ${value}` }),
      );
      each("named", score, { entries: input.names }, ({ key }) => ({ text: key }), {
        compensate: undo(score, (output, error) => ({ text: cel`string(${output.words}) + ${error.reason}` })),
      });
      const votes = eachHuman(
        "votes",
        { items: input.texts, toleratedFailures: 1 },
        ({ value }) => ({ title: value }),
        {
          ok: "bool",
        },
      );
      eachWait("pause", { items: votes.output }, ({ index }) => ({ duration: cel`duration(string(${index}) + 's')` }));
      return { n: words.output[0]![1]!.words };
    });
    expect(json["steps"]).toMatchObject([
      {
        each: { items: "input.texts", each: { items: "each.value.split(' ')", maxParallel: 3 } },
        input: { text: { cel: "string(each.outer.index) + each.value" } },
      },
      { compensate: { input: { text: { cel: "string(each.output.words) + error.reason" } } } },
      { each: { items: "input.texts", toleratedFailures: 1 }, human: { title: { cel: "each.value" } } },
      { each: { items: "steps.votes.output" }, wait: { duration: { cel: "duration(string(each.index) + 's')" } } },
    ]);
    expect(json["output"]).toEqual({ n: { cel: "steps.words.output[0][1].words" } });
  });

  it.each([
    ["an id twice", () => many("one", "one"), "step one: there is a step of this id already"],
    ["a bad id", () => many("1 one"), 'step "1 one": an id has letters'],
    ["a time without a unit", () => many("one", "two", "20"), 'step two.startToClose: "20" is no time'],
    [
      "a reference taken for a value",
      () => chain("a.v1.C/D", { input: { n: "int32" }, output: { s: "string" } }, ({ input }) => ({ s: `${input.n}` })),
      "input.n has no value while the chain is being built",
    ],
    [
      "a branch that is written later",
      () =>
        chain("a.v1.C/D", { input: {}, output: {} }, ({ choose }) => {
          choose("c", [{ when: cel`true`, steps: async () => {} }]);
          return {};
        }),
      "step c.switch.cases[0]: the function that adds the steps must not be async",
    ],
    [
      "a setting that a step does not have",
      () => chain("a.v1.C/D", { input: {}, output: {} }, ({ add }) => ({ ...(add({ id: "x", cal: "y" }) && {}) })),
      "chain a.v1.C/D:",
    ],
  ])("refuses %s, by its place", (_, build, message) => {
    expect(build).toThrow(TypeError);
    expect(build).toThrow(message);
  });

  it("does not compile with a wrong name or type", () => {
    chain("a.v1.C/D", { input: { text: "string", n: "int32" }, output: { words: "int32" } }, ({ input, step }) => {
      const score = step("score", PageActionsService.score, { text: input.text });
      // @ts-expect-error the contract has no such field
      step("a", PageActionsService.score, { txt: input.text });
      // @ts-expect-error a number is no text
      step("b", PageActionsService.score, { text: input.n });
      // @ts-expect-error a literal of the wrong type
      step("c", PageActionsService.score, { text: 5 });
      // @ts-expect-error the output has no such field
      const wrong: Ref<number> = score.output.word;
      // @ts-expect-error a condition is bool
      step("d", PageActionsService.score, { text: "x" }, { when: score.output.words });
      // @ts-expect-error no input of that name
      step("e", PageActionsService.score, { text: input.txt });
      // @ts-expect-error a oneof is given by its member's name
      step("f", rich, { body: { $case: "text", value: "x" } });
      // @ts-expect-error what cel was said to be is checked
      step("g", PageActionsService.score, { text: cel<number>`1` });
      return { words: score.output.words, ...(wrong && {}) };
    });
    chain(
      "a.v1.C/E",
      { input: { texts: "repeated string" }, output: { n: "int32" } },
      ({ input, each, step, human }) => {
        // @ts-expect-error an item is text, not a number
        each("a", rich, { items: input.texts }, ({ value }) => ({ maxSize: value }));
        // @ts-expect-error a list has no keys
        each("b", PageActionsService.score, { items: input.texts }, ({ key }) => ({ text: key }));
        // @ts-expect-error the output in a rule has a wrong type
        step("c", PageActionsService.score, {}, { onFailure: [{ output: () => ({ words: "none" }) }] });
        // @ts-expect-error no such output to repeat on
        step("d", PageActionsService.score, {}, { repeat: { until: ({ letters }) => letters } });
        const { score } = PageActionsService;
        // @ts-expect-error an undo reads what the step puts out
        step("f", score, {}, { compensate: undo(score, (out) => ({ text: out.txt })) });
        const form = human("e", { title: "?" }, { stars: "int32" });
        // @ts-expect-error the form has no such field
        return { n: form.output.star };
      },
    );
    const types = { input: { text: "string" }, output: { words: "int32" } } as const;
    // @ts-expect-error the result is of the wrong type
    chain("a.v1.C/D", types, ({ input }) => ({ words: input.text }));
    // @ts-expect-error the result has no such field
    chain("a.v1.C/D", types, () => ({ word: 1 }));
    expect(true).toBe(true);
  });
});

/** A chain of steps with these ids, the last two of which may be no ids: `startToClose` of the second. */
function many(first: string, second = "two", startToClose = "20s") {
  return chain("a.v1.C/D", { input: { text: "string" }, output: {} }, ({ input, step }) => {
    step(first, PageActionsService.score, { text: input.text });
    step(second, PageActionsService.score, { text: input.text }, { startToClose });
    return {};
  });
}
