// SPDX-License-Identifier: Apache-2.0
// What stands above the charts of a view.

import type { ChartGroup } from "./charts";
import { type Child, h, setText } from "./dom";

const KEY = "temper.smoothing";

// As the user left it, in all views.
export function keptSmoothing(): number {
  return Number(localStorage.getItem(KEY) ?? 0.6);
}

// `change` is called with each new smoothing.
export function chartControls(group: ChartGroup, change: (smoothing: number) => void, ...more: Child[]): HTMLElement {
  const whole = h("button", { class: "quiet", hidden: true, click: () => group.setZoom(undefined) }, "Show all steps");
  group.onZoom = () => (whole.hidden = group.zoom === undefined);
  const said = h("output", { class: "muted" });
  const slider = h("input", {
    type: "range",
    id: "smoothing",
    min: 0,
    max: 0.99,
    step: 0.01,
    value: keptSmoothing(),
    input: () => {
      localStorage.setItem(KEY, slider.value);
      setText(said, Number(slider.value).toFixed(2));
      change(Number(slider.value));
    },
  });
  setText(said, keptSmoothing().toFixed(2));
  return h("div", { class: "controls" }, h("label", { for: "smoothing" }, "Smoothing"), slider, said, ...more, whole);
}
