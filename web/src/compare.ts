// SPDX-License-Identifier: Apache-2.0
// Several jobs in one chart, and what their files have different.

import { type Column, idOf, type Job, type JobEvent } from "./api";
import type { Context, View } from "./app";
import { chartControls, keptSmoothing } from "./chart_controls";
import { ChartGroup, type Line, smooth } from "./charts";
import { fill, h, throttled } from "./dom";
import { followJobs } from "./events";
import { count, figure, percent } from "./format";
import { StepHistory } from "./history";
import { created, hasEnded, number, title, tokensPerSecond, withStep } from "./job_facts";
import { crumbs, empty, progress, statePill } from "./parts";
import { onTheme } from "./theme";
import { differences } from "./yaml";

const COLORS = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6", "--c7", "--bad"];
const POINTS = 2000;

interface Compared {
  job: Job;
  history: StepHistory;
  color: string;
}

export function comparePage(context: Context, ids: string[]): View {
  const group = new ChartGroup();
  let smoothing = keptSmoothing();
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
  const controls = chartControls(group, (value) => {
    smoothing = value;
    draw();
  });
  charts.loss.element.querySelector("figcaption")!.append(controls);
  const all = Object.values(charts).map((chart) => chart.element);
  const section = h("section", { class: "charts", "aria-label": "Charts", hidden: true }, ...all);
  const unbegun = h("div");
  const element = h(
    "div",
    { class: "page" },
    crumbs("Compare"),
    h("h1", {}, `${ids.length} jobs compared`),
    table,
    unbegun,
    section,
  );

  const compared: Compared[] = [];
  let stop = () => {};
  let closed = false;

  const draw = () => {
    fill(table, facts());
    // Jobs of different lengths and paces have their values at different steps: the charts have those of all.
    const steps = [...new Set(compared.flatMap(({ history }) => history.steps))].sort((a, b) => a - b);
    const place = new Map(steps.map((step, i) => [step, i]));
    section.hidden = steps.length === 0;
    fill(unbegun, section.hidden && empty("None has taken a step yet", "Their curves are here from the first one on."));
    const set = (name: keyof typeof charts, values: (history: StepHistory) => Column) => {
      const lines = compared.map(({ job, color, history }): Line => {
        const column: Column = new Array(steps.length).fill(null);
        values(history).forEach((value, i) => (column[place.get(history.steps[i]!)!] = value));
        return { label: title(job), color, values: column, points: name === "validation", gaps: true };
      });
      charts[name].set({ steps, lines });
    };
    set("loss", (history) => smooth(history.column("loss"), smoothing));
    const validated = compared.some(({ history }) => history.validation.size > 0);
    charts.validation.element.hidden = !validated;
    if (validated) set("validation", (history) => history.validationColumn());
    set("grad_norm", (history) => smooth(history.column("grad_norm"), smoothing));
    set("learning_rate", (history) => history.column("learning_rate"));
    set("speed", (history) => history.speed());
    set("mfu", (history) => history.column("mfu"));
    set("goodput", (history) => history.goodput());
  };
  const drawSoon = throttled(500, () => !closed && draw());

  const facts = (): HTMLElement => {
    const name = ({ job, color }: Compared) => {
      const dot = h("span", { class: "dot" });
      dot.style.background = `var(${color})`;
      const link = h("a", { href: `#/jobs/${encodeURIComponent(idOf(job))}`, title: title(job) }, title(job));
      return h("th", { scope: "col" }, h("div", {}, dot, link));
    };
    const row = (label: string, cells: (Node | string)[]) =>
      h("tr", {}, h("th", { scope: "row" }, label), ...cells.map((cell) => h("td", {}, cell)));
    const each = (cell: (job: Job) => Node | string) => compared.map(({ job }) => cell(job));
    const different = differences(compared.map(({ job }) => job.spec)).filter(
      ([path]) => path !== "display_name" && !path.startsWith("output."),
    );
    const table = h(
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
    table.style.minWidth = `${110 * (compared.length + 1)}px`; // and then it is moved sideways
    return table;
  };

  const load = async () => {
    if (ids.length < 2)
      return fill(
        element,
        empty("Nothing to compare", "Choose two or more jobs in the ", h("a", { href: "#/" }, "list"), "."),
      );
    try {
      const histories = ids.map(() => new StepHistory(POINTS));
      const read = await Promise.all(ids.map((id, i) => histories[i]!.read(id)));
      if (closed) return;
      read.forEach(({ job }, i) => compared.push({ job, history: histories[i]!, color: COLORS[i]! }));
      draw();
      const live = read.filter(({ job }) => !hasEnded(job));
      if (live.length === 0) return;
      const places = live.map(({ job, past }) => ({ name: job.name, after: past.last_sequence }));
      stop = followJobs(places, { live: context.live, fail: context.fail, event: take });
    } catch (error) {
      context.fail(error);
    }
  };

  const take = (name: string, event: JobEvent) => {
    const each = compared.find(({ job }) => job.name === name);
    if (!each) return;
    each.history.take(event, created(each.job));
    each.job = withStep(each.job, event.step);
    if (event.validation?.best) each.job.best_validation = event.validation;
    if (event.state) each.job.state = event.state.state;
    drawSoon();
  };

  const unwatch = onTheme(() => group.redraw());
  void load();
  return {
    title: "Compare · temper",
    element,
    close: () => {
      closed = true;
      stop();
      unwatch();
    },
  };
}
