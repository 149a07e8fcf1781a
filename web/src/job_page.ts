// SPDX-License-Identifier: Apache-2.0
// One job: where it is, its curves, what it said, what it left.

import { api, isFinal, type Job, type JobEvent } from "./api";
import type { Context, View } from "./app";
import { fill, h, setText, throttled } from "./dom";
import { followJobs } from "./events";
import { bytes, clock, count, day, duration, figure, part, percent } from "./format";
import { inWords, StepHistory } from "./history";
import { JobCharts } from "./job_charts";
import {
  age,
  created,
  goodput,
  hasEnded,
  lastPart,
  number,
  phaseOf,
  stateOf,
  steps,
  timeLeft,
  timeSpent,
  title,
  tokensPerSecond,
  withStep,
} from "./job_facts";
import { dataPanel, filePanel, type Proof, resultsPanel } from "./job_panels";
import { LogView } from "./log_view";
import { crumbs, empty, labels, problem, progress, statePill } from "./parts";
import { onTheme } from "./theme";

const POINTS = 10_000;
const TABS = [
  ["charts", "Charts"],
  ["log", "Log"],
  ["results", "Results"],
  ["data", "Data"],
  ["file", "Job file"],
] as const;
type Tab = (typeof TABS)[number][0];

export function jobPage(context: Context, id: string, first: string): View {
  const history = new StepHistory(POINTS);
  const charts = new JobCharts(history);
  const log = new LogView();
  let job: Job | undefined;
  let proof: Proof | undefined;
  let tab: Tab = TABS.find(([name]) => name === first)?.[0] ?? "charts";
  let stop = () => {};
  let closed = false;
  const base = `#/jobs/${encodeURIComponent(id)}`;

  const heading = h("h1", {}, id);
  const about = h("p", { class: "muted about" });
  const state = h("div", { class: "now" });
  const actions = h("div", { class: "actions" });
  const tiles = h("dl", { class: "tiles" });
  const waterfall = h("div", { class: "card spent", hidden: true });
  const alert = h("div", { role: "status" });
  const unbegun = h("div");
  const panels: Record<Tab, HTMLElement> = {
    charts: h("div", {}, waterfall, unbegun, charts.element),
    log: log.element,
    results: h("div"),
    data: h("div"),
    file: h("div"),
  };
  const tabs = TABS.map(([name, label]) =>
    h("a", { role: "tab", id: `tab-${name}`, href: `${base}/${name}`, "aria-controls": `panel-${name}` }, label),
  );
  const tabList = h("div", { class: "tabs", role: "tablist", "aria-label": "What to see of the job" }, ...tabs);
  for (const [name] of TABS) {
    const panel = panels[name];
    panel.id = `panel-${name}`;
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", `tab-${name}`);
  }
  tabList.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!move) return;
    const at = TABS.findIndex(([name]) => name === tab);
    const to = TABS[(at + move + TABS.length) % TABS.length]![0];
    event.preventDefault();
    location.hash = `${base}/${to}`;
    tabs[TABS.findIndex(([name]) => name === to)]!.focus();
  });
  const element = h(
    "div",
    { class: "page" },
    crumbs(id),
    h("div", { class: "title" }, h("div", {}, heading, about), actions),
    alert,
    h("div", { class: "card head" }, state, tiles),
    tabList,
    ...Object.values(panels),
  );

  const showTab = () => {
    TABS.forEach(([name], i) => {
      const chosen = name === tab;
      tabs[i]!.setAttribute("aria-selected", String(chosen));
      tabs[i]!.setAttribute("tabindex", chosen ? "0" : "-1");
      panels[name].hidden = !chosen;
    });
    if (!job) return;
    if (tab === "charts") charts.group.resize();
    if (tab === "log") log.show();
    if (tab === "results") void resultsPanel(panels.results, job, proof, context.session);
    if (tab === "data") dataPanel(panels.data, job);
    if (tab === "file") filePanel(panels.file, job);
  };

  const tile = (name: string, value: string, more = "") =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value, more && h("span", { class: "more" }, more)));

  const showHead = () => {
    if (!job) return;
    const now = job;
    setText(heading, title(now));
    document.title = `${stateOf(now) === "RUNNING" ? `${percent(steps(now).now / Math.max(1, steps(now).all))} ` : ""}${title(now)} · temper`;
    const owner = now.spec.owner && `by ${now.spec.owner}`;
    const begun = `created ${day(new Date(now.create_time ?? 0))}`;
    const method = now.spec.lora ? "LoRA" : "all weights";
    fill(about, [lastPart(now.spec.model?.uri), method, owner, begun].filter(Boolean).join(" · "), " ", ...labels(now));
    const left = timeLeft(now, history.pace());
    const times = [
      left !== undefined && `about ${duration(left)} left`,
      hasEnded(now) ? `took ${duration(age(now, Date.now()))}` : `${duration(age(now, Date.now()))} so far`,
      phaseOf(now),
      now.restarts && `${now.restarts} ${now.restarts === 1 ? "restart" : "restarts"}`,
    ];
    fill(
      state,
      h("div", { class: "line" }, statePill(now), h("span", { class: "muted" }, times.filter(Boolean).join(" · "))),
      progress(now),
    );
    fill(
      alert,
      stateOf(now) === "FAILED"
        ? problem(`${(now.cause ?? "").replace("FAILURE_CAUSE_", "")}: ${now.reason ?? ""}`)
        : !hasEnded(now) && now.reason && h("p", { class: "note" }, now.reason),
    );
    const step = now.latest_step;
    const best = now.best_validation;
    tiles.hidden = !step;
    fill(
      tiles,
      tile("Loss", figure(number(step?.loss))),
      now.latest_validation
        ? tile(
            "Validation loss",
            figure(number(now.latest_validation.loss)),
            best && `best ${figure(number(best.loss))}`,
          )
        : null,
      tile("Tokens/s", count(tokensPerSecond(now))),
      tile("MFU", percent(step?.mfu, 1)),
      tile("Gradient norm", figure(number(step?.grad_norm))),
      tile("Memory", bytes(number(step?.peak_memory_bytes))),
      tile("Goodput", percent(goodput(now))),
    );
    showSpent(now);
    showActions(now);
  };

  // Where the wall-clock time went: one bar, and its parts in words.
  const showSpent = (now: Job) => {
    const parts = timeSpent(now);
    const all = parts.reduce((sum, piece) => sum + piece.seconds, 0);
    waterfall.hidden = all === 0;
    const bar = h("div", { class: "bar", "aria-hidden": "true" });
    const list = h("ul", { class: "legend" });
    for (const piece of parts) {
      const stretch = h("span", { title: `${piece.name}: ${duration(piece.seconds)}` });
      stretch.style.width = `${(100 * piece.seconds) / all}%`;
      stretch.style.background = `var(${piece.color})`;
      bar.append(stretch);
      const dot = h("span", { class: "dot" });
      dot.style.background = `var(${piece.color})`;
      list.append(
        h(
          "li",
          {},
          dot,
          piece.name,
          " ",
          h("b", {}, duration(piece.seconds)),
          h("span", { class: "muted" }, ` ${part(piece.seconds / all)}`),
        ),
      );
    }
    fill(waterfall, h("h2", {}, "Where the time went"), bar, list);
  };

  const showActions = (now: Job) => {
    if (hasEnded(now)) return fill(actions);
    const { session } = context;
    const mine = session.role === "admin" || (session.role === "submitter" && now.spec.owner === session.name);
    if (!session.tokens || !mine) return fill(actions);
    const paused = stateOf(now) === "PAUSED" || now.target === "JOB_TARGET_PAUSE";
    const act = (action: "pause" | "resume" | "cancel", label: string, ask = "") =>
      h(
        "button",
        {
          class: action === "cancel" ? "danger" : "",
          disabled: now.target === "JOB_TARGET_CANCEL",
          click: async () => {
            if (ask && !(await confirmed(ask, label))) return;
            try {
              job = { ...now, ...(await api.control(id, action)) };
              showHead();
            } catch (error) {
              fill(alert, problem(error instanceof Error ? error.message : String(error)));
            }
          },
        },
        label,
      );
    // While the user reads the question, the head is drawn again: buttons that are the same stay.
    const shape = `${paused}${now.target}`;
    if (actions.dataset["shape"] === shape) return;
    actions.dataset["shape"] = shape;
    fill(
      actions,
      paused ? act("resume", "Resume") : act("pause", "Pause"),
      act("cancel", "Cancel job", `Cancel ${id} for good? Its checkpoints stay.`),
    );
  };

  const drawCharts = () => {
    const begun = history.steps.length > 0;
    charts.element.hidden = !begun;
    fill(unbegun, !begun && job && empty(...withoutSteps(job)));
    if (begun) charts.draw();
  };
  const draw = throttled(250, () => {
    if (closed) return;
    showHead();
    if (tab === "charts") drawCharts();
  });

  // What an event changes of the job's record, until that is read again.
  const refresh = throttled(500, async () => {
    try {
      const record = await api.job(id);
      if (closed) return;
      // It may be older than the newest step that came.
      job = Number(record.last_sequence ?? 0) < seen ? withStep(record, job?.latest_step) : record;
      if (tab === "results" && job) void resultsPanel(panels.results, job, proof, context.session);
      draw();
    } catch (error) {
      if (isFinal(error)) context.fail(error); // otherwise the stream breaks too, and comes back
    }
  });
  let seen = 0;
  const take = (event: JobEvent) => {
    if (!job || Number(event.sequence) <= seen) return;
    seen = Number(event.sequence);
    history.take(event, created(job));
    job = withStep(job, event.step);
    note(event);
    if (!event.step && !event.log) refresh();
    draw();
  };
  const note = (event: JobEvent) => {
    if (event.export) proof = event.export.proof as Proof;
    const time = clock(new Date(event.time));
    if (event.log)
      return log.add({
        time,
        severity: (event.log.severity ?? "").replace("LOG_SEVERITY_", ""),
        text: event.log.text ?? "",
        rank: event.log.rank ?? 0,
      });
    const words = inWords(event);
    if (words) log.add({ time, severity: "EVENT", text: words.text, rank: undefined });
  };

  const load = async () => {
    try {
      const { job: record, past } = await history.read(id);
      if (closed) return;
      job = record;
      seen = past.last_sequence;
      past.events.forEach(note);
      showHead();
      drawCharts();
      showTab();
      performance.mark("temper-interactive");
      stop = followJobs([{ name: record.name, after: seen }], {
        live: (up) => {
          context.live(up);
          if (up) refresh();
        },
        fail: context.fail,
        event: (_, event) => take(event),
        end: refresh,
      });
    } catch (error) {
      context.fail(error);
    }
  };

  const unwatch = onTheme(() => charts.group.redraw());
  const tick = setInterval(() => job && !hasEnded(job) && showHead(), 1000);
  charts.element.hidden = true;
  showTab();
  void load();
  return {
    title: `${id} · temper`,
    element,
    follow: (hash) => {
      const [, , other = "", wanted = ""] = hash.split("/");
      if (!hash.startsWith("#/jobs/") || decodeURIComponent(other) !== id) return false;
      tab = TABS.find(([name]) => name === wanted)?.[0] ?? "charts";
      showTab();
      if (tab === "charts") drawCharts();
      return true;
    },
    close: () => {
      closed = true;
      stop();
      unwatch();
      clearInterval(tick);
    },
  };
}

// What stands in place of its charts.
function withoutSteps(job: Job): [string, string] {
  if (hasEnded(job)) return ["It took no step", "Its log says what it did."];
  if (stateOf(job) === "QUEUED") return ["It has not begun", "Its curves are here from its first step on."];
  return ["No step yet", "Data and model are read before the first one."];
}

// Asks in a dialog of the page.
function confirmed(question: string, yes: string): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      {
        close: () => {
          dialog.remove();
          resolve(dialog.returnValue === "yes");
        },
      },
      h("p", {}, question),
      h(
        "form",
        { method: "dialog", class: "buttons" },
        h("button", { value: "no" }, "Back"),
        h("button", { value: "yes", class: "danger" }, yes),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
