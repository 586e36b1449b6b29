/** What expressions may call. */

/** Methods that evaluate an expression for each element of a list or map. */
export const macros = new Set(["all", "exists", "exists_one", "map", "filter"]);

/** Functions by name. */
export const functions = new Set("has size int uint double bool string bytes duration timestamp dyn".split(" "));
/** Methods by name, macros included. */
export const methods = new Set([
  ...macros,
  ..."size contains startsWith endsWith matches lowerAscii upperAscii trim indexOf lastIndexOf".split(" "),
  ..."substring split join charAt replace getSeconds getMinutes getHours getMilliseconds getFullYear getMonth".split(
    " ",
  ),
  ..."getDate getDayOfMonth getDayOfWeek getDayOfYear".split(" "),
]);
