/** Changes of messages and enums. */
import { type Change, cardinality, edition, enums, gone, more, none, proto2, type } from "./change-forms-fixture.js";

export const types: Change[] = [
  more(
    "a field gets another message type",
    [
      "message Line { A a = 1; } message A { string x = 1; } message B { string x = 1; }",
      "message Line { B a = 1; } message A { string x = 1; } message B { string x = 1; }",
    ],
    [type("Line.a"), type("Line.a")],
  ),
  edition(
    "a message is written as a group",
    ["Part a = 1;", "Part a = 1 [features.message_encoding = DELIMITED];"],
    [type("Part.a"), type("Part.a")],
  ),
  more(
    "a field becomes an enum",
    ["message Line { int32 a = 1; } enum K { K_ZERO = 0; }", "message Line { K a = 1; } enum K { K_ZERO = 0; }"],
    [type("Line.a"), type("Line.a")],
  ),
  more(
    "an enum becomes one of the same name with more values",
    [
      "message Line { enum K { A = 0; } K a = 1; } message X { enum K { A = 0; B = 1; } K a = 1; }",
      "message Line { enum K { A = 0; } X.K a = 1; } message X { enum K { A = 0; B = 1; } K a = 1; }",
    ],
    [none, type("Line.a")],
  ),
  more(
    "an enum becomes one of another name",
    [
      "message Line { K a = 1; } enum K { K_A = 0; } enum L { L_A = 0; }",
      "message Line { L a = 1; } enum K { K_A = 0; } enum L { L_A = 0; }",
    ],
    [type("Line.a"), type("Line.a")],
  ),
  more(
    "a message within a message changes",
    ["message Line { A a = 1; } message A { string x = 1; }", "message Line { A a = 1; } message A { bytes x = 1; }"],
    [type("A.x"), type("A.x")],
  ),
  more(
    "a message within a list of a list changes",
    [
      "message Line { repeated A a = 1; } message A { repeated B b = 1; } message B { string x = 1; }",
      "message Line { repeated A a = 1; } message A { repeated B b = 1; } message B { bool x = 1; }",
    ],
    [type("B.x"), type("B.x")],
  ),
  more(
    "a message within a map changes",
    [
      "message Line { map<string, A> a = 1; } message A { string x = 1; }",
      "message Line { map<string, A> a = 1; } message A { bool x = 1; }",
    ],
    [type("A.x"), type("A.x")],
  ),
  more(
    "a message that contains itself changes",
    ["message Line { Line a = 1; string x = 2; }", "message Line { Line a = 1; bool x = 2; }"],
    [type("Line.x"), type("Line.x")],
  ),
  more(
    "a wrapper becomes a scalar",
    [
      "message Line { message W { string value = 1; } W a = 1; }",
      "message Line { message W { string value = 1; } string a = 1; }",
    ],
    [type("Line.a"), type("Line.a")],
  ),
  enums(
    "a value is added",
    ["K_A = 0;", "K_A = 0; K_B = 1;"],
    [
      none,
      ["ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED Kind.K_B", "ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED Kind.K_B"],
    ],
  ),
  enums(
    "a value is reserved",
    ["K_A = 0; K_B = 1;", 'K_A = 0; reserved 1; reserved "K_B";'],
    [none, ["RESERVED_ENUM_NO_DELETE Kind"]],
  ),
  enums(
    "only the number of a value is reserved",
    ["K_A = 0; K_B = 1;", "K_A = 0; reserved 1;"],
    [["ENUM_VALUE_NO_DELETE_UNLESS_NAME_RESERVED Kind.K_B"], ["RESERVED_ENUM_NO_DELETE Kind"]],
  ),
  enums(
    "only the name of a value is reserved",
    ["K_A = 0; K_B = 1;", 'K_A = 0; reserved "K_B";'],
    [["ENUM_VALUE_NO_DELETE_UNLESS_NUMBER_RESERVED Kind.K_B"], ["RESERVED_ENUM_NO_DELETE Kind"]],
  ),
  enums(
    "a value is renamed",
    ["K_A = 0; K_B = 1;", "K_A = 0; K_C = 1;"],
    [["ENUM_VALUE_SAME_NAME Kind.K_C"], ["ENUM_VALUE_SAME_NAME Kind.K_B"]],
  ),
  enums(
    "a value gets an alias",
    [
      "option allow_alias = true; K_A = 0; K_B = 1; K_X = 1;",
      "option allow_alias = true; K_A = 0; K_B = 1; K_X = 1; K_C = 1;",
    ],
    [none, ["ENUM_VALUE_SAME_NAME Kind.K_B"]],
  ),
  enums(
    "a reserved range shrinks",
    ["K_A = 0; reserved 5 to 9;", "K_A = 0; reserved 5 to 8;"],
    [["RESERVED_ENUM_NO_DELETE Kind"], none],
  ),
  enums("a reserved name goes", ['K_A = 0; reserved "X";', "K_A = 0;"], [["RESERVED_ENUM_NO_DELETE Kind"], none]),
  proto2(
    "a required field is added",
    ["optional string a = 1;", "optional string a = 1; required string b = 2;"],
    [["MESSAGE_SAME_REQUIRED_FIELDS Order.b"], [...gone("Order.b"), "MESSAGE_SAME_REQUIRED_FIELDS Order.b"]],
  ),
  proto2(
    "a field becomes required",
    ["optional string a = 1;", "required string a = 1;"],
    [
      ["MESSAGE_SAME_REQUIRED_FIELDS Order.a", ...cardinality("Order.a")],
      ["MESSAGE_SAME_REQUIRED_FIELDS Order.a", ...cardinality("Order.a")],
    ],
  ),
  proto2(
    "a default changes",
    ['optional string a = 1 [default = "x"];', 'optional string a = 1 [default = "y"];'],
    [["FIELD_SAME_DEFAULT Order.a"], ["FIELD_SAME_DEFAULT Order.a"]],
  ),
  proto2(
    "a default is added",
    ["optional int32 a = 1;", "optional int32 a = 1 [default = 7];"],
    [["FIELD_SAME_DEFAULT Order.a"], ["FIELD_SAME_DEFAULT Order.a"]],
  ),
  proto2(
    "the default that it has anyway is added",
    ["optional int32 a = 1;", "optional int32 a = 1 [default = 0];"],
    [none, none],
  ),
  edition(
    "an enum is closed",
    ["K a = 1; enum K { K_A = 0; }", "K a = 1; enum K { option features.enum_type = CLOSED; K_A = 0; }"],
    [["MESH_ENUM_CLOSED Part.K"], none],
  ),
  edition(
    "a message may have no JSON form",
    ["string a = 1;", "option features.json_format = LEGACY_BEST_EFFORT; string a = 1;"],
    [["MESSAGE_SAME_JSON_FORMAT Part"], none],
  ),
  edition(
    "an enum may have no JSON form",
    ["K a = 1; enum K { K_A = 0; }", "K a = 1; enum K { option features.json_format = LEGACY_BEST_EFFORT; K_A = 0; }"],
    [["ENUM_SAME_JSON_FORMAT Part.K"], none],
  ),
  edition(
    "a field loses its presence",
    ["string a = 1;", "string a = 1 [features.field_presence = IMPLICIT];"],
    [none, none],
  ),
];
