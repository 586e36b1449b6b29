/** Changes of contracts with the verdict on each, both ways: the table that the rules are held to. */
import type { Change } from "./change-forms-fixture.js";
import { fields } from "./changes-of-fields-fixture.js";
import { rpcs, rules } from "./changes-of-rules-fixture.js";
import { types } from "./changes-of-types-fixture.js";

/** All of them. */
export const changes: Change[] = [...fields, ...types, ...rpcs, ...rules];
