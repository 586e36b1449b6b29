import { type GetPayloadRequest, PayloadServiceService, RegistryServiceService } from "@taskmesh/proto";
import { describe, expect, it } from "vitest";
import { defineAction, defineStream } from "./define.js";

const { getContract } = RegistryServiceService;
const answer = { contract: "c", method: "m", descriptorSet: Buffer.alloc(0), inputType: "i", outputType: "o" };

describe("defineAction", () => {
  it("takes the names from the generated entry and hands the handler through", async () => {
    const action = defineAction(getContract, async ({ method }) => ({ ...answer, method }));
    expect(action.method).toBe("taskmesh.v1.RegistryService/GetContract");
    expect(action.service).toBe("taskmesh.v1.RegistryService");
    expect(action.entry).toBe(getContract);
  });

  it("accepts a handler that answers at once", () => {
    expect(defineAction(getContract, () => answer).handler).toBeTypeOf("function");
  });

  it("takes a generator where the rpc returns a stream, and refuses an rpc that takes one", () => {
    const get = defineStream(PayloadServiceService.getPayload, async function* () {
      yield { chunk: Buffer.alloc(0) };
    });
    expect(get.entry.responseStream).toBe(true);
    expect(() => defineStream(getContract, async function* () {})).toThrow(/GetContract returns one message/);
    const one = () => ({ chunk: Buffer.alloc(0) });
    expect(() => defineAction(PayloadServiceService.getPayload, one)).toThrow(
      /GetPayload returns a stream: .*defineStream/,
    );
    expect(() => defineAction(PayloadServiceService.putPayload, () => ({ payload: undefined }))).toThrow(
      /PutPayload takes a stream: an action takes one message/,
    );
  });

  it("refuses what is no generated method, and a handler that is no function", () => {
    const wrong = { path: "x" } as unknown as typeof getContract;
    expect(() => defineAction(wrong, () => answer)).toThrow(/needs a method of a generated service/);
    expect(() => defineAction(getContract, "no" as unknown as () => typeof answer)).toThrow(/is not a function/);
  });
});

// Checked by tsc: each expectation below fails the type check when the line under it compiles.
export const typeTests = {
  wholeOutputs: () =>
    defineStream(PayloadServiceService.getPayload, async function* () {
      yield { chunk: Buffer.alloc(0) };
      return { chunk: Buffer.alloc(1) };
    }),
  wrongOutput: () =>
    // @ts-expect-error: an output with a field that the message does not have
    defineStream(PayloadServiceService.getPayload, async function* () {
      yield { chunks: Buffer.alloc(0) };
    }),
  noGenerator: () =>
    // @ts-expect-error: one answer where the rpc returns a stream
    defineStream(PayloadServiceService.getPayload, async () => ({ chunk: Buffer.alloc(0) })),
  wholeAnswer: () => defineAction(getContract, async () => answer),
  literalAnswer: () =>
    defineAction(RegistryServiceService.listActions, async () => ({
      actions: [
        {
          namespace: "",
          method: "",
          contract: "",
          revision: 1,
          inputType: "",
          outputType: "",
          servable: true,
          workers: 1,
          slots: 1,
          description: "",
          taskQueues: [],
        },
      ],
    })),
  unionAnswer: () =>
    defineAction(RegistryServiceService.claimAttempt, async () => ({
      verdict: { $case: "drop", value: "why" },
    })),
  optionalMessageLeftOut: () => defineAction(RegistryServiceService.claimAttempt, async () => ({})),
  inputIsTyped: () =>
    defineAction(getContract, async (input) => {
      const text: string = input.method;
      // @ts-expect-error the input has no such field
      const wrong = input.nothing;
      return { ...answer, method: `${text}${wrong}` };
    }),
  // @ts-expect-error the output lacks fields
  missingField: () => defineAction(getContract, async () => ({ contract: "c" })),
  // @ts-expect-error a number is no string
  wrongType: () => defineAction(getContract, async () => ({ ...answer, method: 5 })),
  // @ts-expect-error the output has no field `metod`
  unknownField: () => defineAction(getContract, async () => ({ ...answer, metod: "" })),
  unknownNestedField: () =>
    // @ts-expect-error the nested message has no field `nam`
    defineAction(RegistryServiceService.claimAttempt, async () => ({ verdict: { $case: "drop", value: "w", nam: 1 } })),
  unknownCase: () =>
    // @ts-expect-error the oneof has no case "drip"
    defineAction(RegistryServiceService.claimAttempt, async () => ({ verdict: { $case: "drip", value: "w" } })),
  // @ts-expect-error a handler of another input
  wrongInput: () => defineAction(getContract, async (_input: GetPayloadRequest) => answer),
  // @ts-expect-error an answer is needed
  noAnswer: () => defineAction(getContract, async () => {}),
};
