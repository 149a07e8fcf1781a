// SPDX-License-Identifier: Apache-2.0
// Several jobs in one chart, and what their files have different.

import { api, type Column, idOf, type Job, type JobEvent } from "./api";
import type { Context, View } from "./app";
import { ChartGroup, type Line, smooth } from "./charts";
import { fill, h, setText, throttled } from "./dom";
import { follow } from "./events";
import { count, figure, percent } from "./format";
import { StepHistory } from "./history";
import { hasEnded, number, title, tokensPerSecond } from "./job_facts";
import { empty, progress, statePill } from "./parts";
import { onTheme } from "./theme";
import { differences } from "./yaml";

const COLORS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--bad"];
const POINTS = 2000;

// What comes after the history is in the stream, so the rest is read after it.
async function read(id: string) {
  const past = await api.history(id);
  const [job, columns] = await Promise.all([api.job(id), api.metrics(id, POINTS)]);
  return { job, columns, past };
}

interface Compared {
  job: Job;
  history: StepHistory;
  color: string;
}

export function comparePage(context: Context, ids: string[]): View {
  const group = new ChartGroup();
  let smoothing = 0.6;
  const charts = {
    loss: group.add({ title: "Loss", format: figure, height: 320, wide: true }),
    validation: group.add({ title: "Validation loss", format: figure }),
    grad_norm: group.add({ title: "Gradient norm", format: figure }),
    learning_rate: group.add({ title: "Learning rate", format: figure, zero: true }),
    speed: group.add({ title: "Tokens/s", format: (value) => count(value), zero: true }),
    mfu: group.add({ title: "FLOPs utilization (MFU)", format: (value) => percent(value, 1), zero: true }),
    goodput: group.add({ title: "Goodput", format: (value) => percent(value, 1), zero: true, top: 1 }),
  };
  const table = h("div", { class: "card scroll", tabindex: 0 });
  const said = h("output", { class: "muted" }, smoothing.toFixed(2));
  const slider = h("input", {
    type: "range",
    id: "smoothing",
    min: 0,
    max: 0.99,
    step: 0.01,
    value: smoothing,
    input: () => {
      smoothing = Number(slider.value);
      setText(said, smoothing.toFixed(2));
      draw();
    },
  });
  const whole = h("button", { class: "quiet", hidden: true, click: () => group.setZoom(undefined) }, "Show all steps");
  group.onZoom = () => (whole.hidden = group.zoom === undefined);
  charts.loss.element
    .querySelector("figcaption")!
    .append(h("div", { class: "controls" }, whole, h("label", { for: "smoothing" }, "Smoothing"), slider, said));
  const element = h(
    "div",
    { class: "page" },
    h(
      "nav",
      { class: "crumbs", "aria-label": "Where you are" },
      h("a", { href: "#/" }, "Jobs"),
      " / ",
      h("span", {}, "Compare"),
    ),
    h("h1", {}, `${ids.length} jobs compared`),
    table,
    h("section", { class: "charts", "aria-label": "Charts" }, ...Object.values(charts).map((chart) => chart.element)),
  );

  const compared: Compared[] = [];
  const stops: (() => void)[] = [];
  let closed = false;

  // The steps of all, and each job's values at them.
  const aligned = (values: (each: Compared) => Column): { steps: number[]; columns: Column[] } => {
    const steps = [...new Set(compared.flatMap(({ history }) => history.steps))].sort((a, b) => a - b);
    const place = new Map(steps.map((step, i) => [step, i]));
    const columns = compared.map((each) => {
      const column: Column = new Array(steps.length).fill(null);
      values(each).forEach((value, i) => (column[place.get(each.history.steps[i]!)!] = value));
      return column;
    });
    return { steps, columns };
  };

  const set = (name: keyof typeof charts, values: (each: Compared) => Column) => {
    const { steps, columns } = aligned(values);
    const lines = compared.map(
      ({ job, color }, i): Line => ({ label: title(job), color, values: columns[i]!, points: name === "validation" }),
    );
    // Jobs of different lengths and paces have their values at different steps.
    charts[name].set({ steps, lines: lines.map((line) => ({ ...line, gaps: true })) });
  };

  const draw = () => {
    set("loss", ({ history }) => smooth(history.column("loss"), smoothing));
    const validated = compared.some(({ history }) => history.validation.size > 0);
    charts.validation.element.hidden = !validated;
    if (validated) set("validation", ({ history }) => history.validationColumn());
    set("grad_norm", ({ history }) => smooth(history.column("grad_norm"), smoothing));
    set("learning_rate", ({ history }) => history.column("learning_rate"));
    set("speed", ({ history }) => history.speed());
    set("mfu", ({ history }) => history.column("mfu"));
    set("goodput", ({ history }) => history.goodput());
    fill(table, facts());
  };
  const drawSoon = throttled(500, () => !closed && draw());

  const facts = (): HTMLElement => {
    const name = ({ job, color }: Compared) => {
      const dot = h("span", { class: "dot" });
      dot.style.background = `var(${color})`;
      return h("th", { scope: "col" }, dot, h("a", { href: `#/jobs/${encodeURIComponent(idOf(job))}` }, title(job)));
    };
    const row = (label: string, cells: (Node | string)[]) =>
      h("tr", {}, h("th", { scope: "row" }, label), ...cells.map((cell) => h("td", {}, cell)));
    const each = (cell: (job: Job) => Node | string) => compared.map(({ job }) => cell(job));
    const different = differences(compared.map(({ job }) => job.spec)).filter(
      ([path]) => path !== "display_name" && !path.startsWith("output."),
    );
    return h(
      "table",
      { class: "compare" },
      h("thead", {}, h("tr", {}, h("td"), ...compared.map(name))),
      h(
        "tbody",
        {},
        row("State", each(statePill)),
        row("Progress", each(progress)),
        row(
          "Loss",
          each((job) => figure(number(job.latest_step?.loss))),
        ),
        row(
          "Best validation loss",
          each((job) => figure(number(job.best_validation?.loss))),
        ),
        row(
          "Tokens/s",
          each((job) => count(tokensPerSecond(job))),
        ),
        row(
          "MFU",
          each((job) => percent(job.latest_step?.mfu, 1)),
        ),
        ...different.map(([path, values]) => row(path, values)),
      ),
    );
  };

  const load = async () => {
    if (ids.length < 2)
      return fill(
        element,
        empty("Nothing to compare", "Choose two or more jobs in the ", h("a", { href: "#/" }, "list"), "."),
      );
    try {
      const all = await Promise.all(ids.map(read));
      if (closed) return;
      all.forEach(({ job, columns, past }, i) => {
        const history = new StepHistory();
        history.load(columns);
        history.loadTimes(past.times);
        past.events.forEach((event) => history.mark(event, 0));
        const each: Compared = { job, history, color: COLORS[i]! };
        compared.push(each);
        if (hasEnded(job)) return;
        stops.push(
          follow(`/api/v1/jobs/${encodeURIComponent(idOf(job))}/stream`, String(past.last_sequence), {
            live: context.live,
            fail: context.fail,
            message: (type, data) => {
              if (type === "message") take(each, JSON.parse(data) as JobEvent);
            },
          }),
        );
      });
      draw();
    } catch (error) {
      context.fail(error);
    }
  };

  const take = (each: Compared, event: JobEvent) => {
    if (event.step) {
      const created = Date.parse(each.job.create_time ?? "");
      each.history.add(event.step);
      each.history.addTime(Number(event.step.step), (Date.parse(event.time) - created) / 1000);
      each.job = { ...each.job, latest_step: event.step, current_step: event.step.step };
    } else {
      each.history.mark(event, each.history.steps.at(-1) ?? 0);
      if (event.validation) each.job.best_validation ??= event.validation;
      if (event.state) each.job.state = event.state.state;
    }
    drawSoon();
  };

  const unwatch = onTheme(() => group.redraw());
  void load();
  return {
    title: "Compare · temper",
    element,
    close: () => {
      closed = true;
      stops.forEach((stop) => stop());
      unwatch();
    },
  };
}
