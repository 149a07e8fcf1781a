// SPDX-License-Identifier: Apache-2.0
// Small things that several views show.

import type { Column, Job } from "./api";
import { h, svg } from "./dom";
import { count, percent } from "./format";
import { hasEnded, stateOf, steps } from "./job_facts";

// Told apart by its sign too, not by colour alone.
const SIGNS: Record<string, string> = {
  QUEUED: "◌",
  CHECKING: "◔",
  STARTING: "◔",
  RUNNING: "●",
  STOPPING: "◐",
  PAUSED: "‖",
  SUCCEEDED: "✓",
  FAILED: "✕",
  CANCELLED: "⊘",
};

export function statePill(job: Job): HTMLElement {
  const state = stateOf(job);
  const sign = h("span", { "aria-hidden": "true" }, SIGNS[state] ?? "");
  return h("span", { class: `pill ${state.toLowerCase()}` }, sign, state.charAt(0) + state.slice(1).toLowerCase());
}

export function progress(job: Job): HTMLElement {
  const { now, all } = steps(job);
  const share = all > 0 ? Math.min(1, now / all) : stateOf(job) === "SUCCEEDED" ? 1 : 0;
  const bar = h("span", { class: "fill" });
  bar.style.width = `${100 * share}%`;
  const text = all > 0 ? `${count(now)} / ${count(all)}` : hasEnded(job) ? "" : "–";
  return h(
    "div",
    { class: `progress ${stateOf(job).toLowerCase()}` },
    h(
      "div",
      {
        class: "track",
        role: "progressbar",
        "aria-label": "Steps",
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        "aria-valuenow": Math.round(100 * share),
        "aria-valuetext": text || percent(share),
      },
      bar,
    ),
    h("span", { class: "steps" }, text, all > 0 && h("span", { class: "muted" }, ` · ${percent(share)}`)),
  );
}

// A curve of a few points, without axes.
export function sparkline(values: Column | undefined, label: string): Element {
  const known = (values ?? []).filter((value): value is number => value !== null && Number.isFinite(value));
  const [width, height] = [96, 26];
  if (known.length < 2) return svg("svg", { class: "sparkline", width, height, "aria-hidden": "true" });
  const low = Math.min(...known);
  const span = Math.max(...known) - low || 1;
  const points = known.map((value, i) => {
    const x = 2 + (i / (known.length - 1)) * (width - 6);
    return `${x.toFixed(1)},${(3 + (1 - (value - low) / span) * (height - 6)).toFixed(1)}`;
  });
  const [x, y] = points.at(-1)!.split(",") as [string, string];
  return svg(
    "svg",
    { class: "sparkline", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label },
    svg("polyline", { points: points.join(" ") }),
    svg("circle", { cx: x, cy: y, r: 2 }),
  );
}

export function labels(job: Job): HTMLElement[] {
  return Object.entries(job.spec.labels ?? {})
    .sort()
    .map(([key, value]) => h("span", { class: "label" }, `${key}=${value}`));
}

export function crumbs(here: string): HTMLElement {
  const jobs = h("a", { href: "#/" }, "Jobs");
  return h("nav", { class: "crumbs", "aria-label": "Where you are" }, jobs, " / ", h("span", {}, here));
}

export function problem(text: string): HTMLElement {
  return h("div", { class: "problem", role: "alert" }, text);
}

export function empty(title: string, ...hint: (Node | string)[]): HTMLElement {
  return h("div", { class: "empty" }, h("p", { class: "big" }, title), h("p", {}, ...hint));
}

export function download(url: string, name: string): void {
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}
