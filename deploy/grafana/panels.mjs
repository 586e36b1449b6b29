// What dashboards are made of: panels as Grafana takes them, from the few things that differ.
const prometheus = { type: "prometheus", uid: "$metrics" };
/** Where traces are. */
export const tempo = { type: "tempo", uid: "$traces" };
const width = 24;

/** A rate over the range that fits the zoom. */
export const rate = (series, by) => `sum by (${by}) (rate(${series}[$__rate_interval]))`;
/** A quantile of a histogram over the same range. */
export const quantile = (q, name, by = "", of = "") =>
  `histogram_quantile(${q}, sum by (${by ? `${by}, ` : ""}le) (rate(${name}_bucket${of}[$__rate_interval])))`;
/** Median, 95th and 99th percentile, each with its legend. */
export const quantiles = (name, of = "") => [0.5, 0.95, 0.99].map((q) => [quantile(q, name, "", of), `p${q * 100}`]);

const base = (title, type, description) => ({ title, type, description, datasource: prometheus });
const targets = (queries) =>
  queries.map(([expr, legendFormat], index) => ({
    refId: String.fromCharCode(65 + index),
    datasource: prometheus,
    expr,
    legendFormat: legendFormat ?? "__auto",
  }));

/** Lines over time. `queries`: [expression, legend]. */
export const lines = (title, description, unit, queries, { w = 12, stacked = false } = {}) => ({
  size: { w, h: 8 },
  panel: {
    ...base(title, "timeseries", description),
    fieldConfig: {
      defaults: {
        unit,
        min: 0,
        custom: {
          lineWidth: 1,
          fillOpacity: stacked ? 30 : 5,
          showPoints: "never",
          stacking: { mode: stacked ? "normal" : "none" },
        },
      },
      overrides: [],
    },
    options: {
      legend: { displayMode: "list", placement: "bottom", showLegend: true },
      tooltip: { mode: "multi", sort: "desc" },
    },
    targets: targets(queries),
  },
});

/** One number now; `bad`: from there on it is red (or, with `below`, below it). */
export const number = (title, description, unit, expr, { bad, below = false } = {}) => {
  const [good, wrong] = ["green", "red"];
  const steps =
    bad === undefined
      ? [{ color: good, value: null }]
      : [
          { color: below ? wrong : good, value: null },
          { color: below ? good : wrong, value: bad },
        ];
  return {
    size: { w: 4, h: 4 },
    panel: {
      ...base(title, "stat", description),
      fieldConfig: { defaults: { unit, thresholds: { mode: "absolute", steps } }, overrides: [] },
      options: {
        colorMode: "value",
        graphMode: "area",
        reduceOptions: { calcs: ["lastNotNull"], fields: "", values: false },
      },
      targets: targets([[expr]]),
    },
  };
};

/** A table of the newest values, a column for each query. */
export const table = (title, description, queries, labels) => ({
  size: { w: 24, h: 10 },
  panel: {
    ...base(title, "table", description),
    fieldConfig: {
      defaults: {},
      overrides: queries.map(([, , unit], index) => ({
        matcher: { id: "byName", options: `Value #${String.fromCharCode(65 + index)}` },
        properties: [
          { id: "displayName", value: queries[index][1] },
          { id: "unit", value: unit },
        ],
      })),
    },
    options: { showHeader: true, cellHeight: "sm" },
    transformations: [
      { id: "merge", options: {} },
      {
        id: "organize",
        options: {
          excludeByName: { Time: true },
          indexByName: Object.fromEntries(labels.map((label, index) => [label, index])),
          renameByName: {},
        },
      },
    ],
    targets: targets(queries).map((target) => ({ ...target, legendFormat: "", format: "table", instant: true })),
  },
});

/** A variable that picks a data source. */
export const datasource = (name, label, query) => ({
  name,
  label,
  type: "datasource",
  query,
  current: {},
  hide: 0,
  refresh: 1,
});
/** A variable that picks values of a label. */
export const choice = (name, label, series) => ({
  name,
  label,
  type: "query",
  datasource: prometheus,
  query: { query: `label_values(${series}, ${name})`, refId: "values" },
  current: { text: "All", value: "$__all" },
  includeAll: true,
  allValue: ".*",
  multi: true,
  refresh: 2,
  sort: 1,
});

const links = [
  { title: "Taskmesh", type: "dashboards", tags: ["taskmesh"], asDropdown: true, includeVars: false, keepTime: true },
];

/** A dashboard of panels, placed from left to right. */
export function dashboard(name, title, description, panels = [], variables = []) {
  let x = 0;
  let y = 0;
  let row = 0;
  const placed = panels.map(({ size, panel }, index) => {
    if (x + size.w > width) {
      x = 0;
      y += row;
      row = 0;
    }
    const at = { x, y, ...size };
    x += size.w;
    row = Math.max(row, size.h);
    return { id: index + 1, gridPos: at, ...panel };
  });
  return {
    uid: `taskmesh-${name}`,
    title: `Taskmesh / ${title}`,
    description,
    tags: ["taskmesh"],
    schemaVersion: 41,
    editable: true,
    refresh: "30s",
    time: { from: "now-1h", to: "now" },
    timezone: "browser",
    links,
    templating: { list: [datasource("metrics", "Prometheus", "prometheus"), ...variables] },
    annotations: { list: [] },
    panels: placed,
  };
}
