/**
 * The slots of a worker over a change of its work transport.
 *
 *   slots of a lane = what its present transport may use + what is in hand from the transports before it
 *
 * A transport counts what it brought itself. Handlers outlive it (a lapsed session, another coordinator, a transport that seemed dead): so the
 * next one is opened with the slots that are free, and gets the others one by one as those attempts end.
 */
import type { LaneGrant } from "@taskmesh/proto";
import type { StartDelivery } from "@taskmesh/runtime";

type Counts = Map<string, number>;

export class TransportSlots {
  /** Starts in hand that the present transport brought, by task queue. */
  #own: Counts = new Map();
  /** Starts in hand that earlier ones brought, by task queue. */
  readonly #carried: Counts = new Map();
  /** Slots that the present transport was opened with, by consumer. */
  #given: Counts = new Map();
  readonly #onFree: () => void;

  /** `onFree` is called after a slot that an earlier transport filled became free: `due` has something then. */
  constructor(onFree: () => void) {
    this.#onFree = onFree;
  }

  /** Begins with another transport: what is in hand is carried over. Returns what each of its deliveries has to pass through. */
  begin(): (delivery: StartDelivery) => StartDelivery {
    for (const [taskQueue, count] of this.#own) add(this.#carried, taskQueue, count);
    const own: Counts = new Map();
    this.#own = own;
    this.#given = new Map();
    return (delivery) => this.#count(delivery, own);
  }

  /**
   * The lanes with the slots that the present transport may use beyond those it was given already. At first every lane, also those without a
   * free slot; later those that have more.
   */
  due(lanes: readonly LaneGrant[]): LaneGrant[] {
    const carried = new Map(this.#carried);
    const due: LaneGrant[] = [];
    for (const lane of lanes) {
      const held = Math.min(carried.get(lane.taskQueue) ?? 0, lane.slots);
      add(carried, lane.taskQueue, -held);
      const given = this.#given.get(lane.consumer);
      const slots = lane.slots - held - (given ?? 0);
      if (given !== undefined && slots <= 0) continue;
      add(this.#given, lane.consumer, slots);
      due.push({ ...lane, slots });
    }
    return due;
  }

  #count(delivery: StartDelivery, own: Counts): StartDelivery {
    const { taskQueue } = delivery;
    add(own, taskQueue, 1);
    let released = false;
    return {
      ...delivery,
      release: () => {
        if (released) return;
        released = true;
        delivery.release();
        if (own === this.#own) {
          add(own, taskQueue, -1);
          return;
        }
        add(this.#carried, taskQueue, -1);
        this.#onFree();
      },
    };
  }
}

function add(counts: Counts, key: string, count: number): void {
  counts.set(key, (counts.get(key) ?? 0) + count);
}
