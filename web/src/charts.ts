// SPDX-License-Identifier: Apache-2.0
// Charts over steps. All charts of a group share their steps, cursor and zoom.

import uPlot from "uplot";
import type { Column } from "./api";
import { fill, h, setText } from "./dom";
import { count } from "./format";
import { nearest } from "./step_times";

export interface Line {
  label: string;
  color: string; // name of a CSS variable
  values: Column;
  width?: number;
  faint?: boolean;
  points?: boolean; // few values, each to be seen
  gaps?: boolean; // values are missing here and there, and the line goes on
  dash?: number[];
  fill?: boolean; // down to the line before it: stacked areas
  shown?: Column; // what the readout says, where that differs from what is drawn
}

export interface Marker {
  step: number;
  kind: "checkpoint" | "restart" | "spike" | "best";
  text: string;
}

export interface ChartData {
  steps: number[];
  lines: Line[];
  markers?: Marker[];
}

export interface ChartOptions {
  title: string;
  hint?: string;
  format: (value: number | null | undefined) => string;
  height?: number;
  log?: boolean;
  zero?: boolean; // the axis begins at 0
  top?: number; // … and ends here
  wide?: boolean; // all across
  broad?: boolean; // two columns, where there are several
}

// The most telling is the last: where there is no room for all, it is the one that is seen.
const MARKERS: Record<Marker["kind"], { color: string; glyph: string; means: string }> = {
  checkpoint: { color: "--good", glyph: "◆", means: "checkpoint" },
  best: { color: "--accent-text", glyph: "★", means: "best checkpoint" },
  restart: { color: "--warn", glyph: "▲", means: "restart" },
  spike: { color: "--bad", glyph: "✕", means: "spike, or step skipped" },
};
const KINDS = Object.keys(MARKERS) as Marker["kind"][];
const MARKER_WIDTH = 8; // in pixels

function css(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Charts that look at the same steps.
export class ChartGroup {
  private readonly charts: Chart[] = [];
  private busy = false;
  zoom: [number, number] | undefined;
  onZoom: () => void = () => {};

  add(options: ChartOptions): Chart {
    const chart = new Chart(this, options);
    this.charts.push(chart);
    return chart;
  }

  // A cursor at one step is at that step in all.
  point(at: Chart, step: number | null): void {
    if (this.busy) return;
    this.busy = true;
    for (const chart of this.charts) chart.show(step, chart === at);
    this.busy = false;
  }

  setZoom(range: [number, number] | undefined): void {
    if (this.busy) return;
    this.busy = true;
    this.zoom = range;
    for (const chart of this.charts) chart.applyZoom();
    this.busy = false;
    this.onZoom();
  }

  redraw(): void {
    for (const chart of this.charts) chart.rebuild();
  }

  resize(): void {
    for (const chart of this.charts) chart.resize();
  }
}

export class Chart {
  readonly element: HTMLElement;
  private readonly plotBox = h("div", { class: "plot", tabindex: 0, role: "img" });
  private readonly readout = h("p", { class: "readout" });
  private readonly legend = h("p", { class: "marks" }); // what its markers mean
  private data: ChartData = { steps: [], lines: [] };
  private plot: uPlot | undefined;
  private shape = "";
  private at: number | null = null; // index of the step under the cursor
  private pinched: [number, number] | undefined; // the steps that two fingers hold
  private readonly observer: ResizeObserver;

  constructor(
    private readonly group: ChartGroup,
    readonly options: ChartOptions,
  ) {
    this.element = h(
      "figure",
      { class: `chart${options.wide ? " wide" : ""}${options.broad ? " broad" : ""}` },
      h("figcaption", {}, h("h2", { title: options.hint }, options.title), this.readout),
      this.plotBox,
      options.wide && this.legend,
    );
    this.plotBox.addEventListener("keydown", (event) => this.key(event));
    this.plotBox.addEventListener("blur", () => group.point(this, null));
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.plotBox);
  }

  set(data: ChartData): void {
    this.data = data;
    const shape = data.lines.map((line) => `${line.label}${line.color}${line.faint}`).join("|");
    if (this.plot && shape === this.shape) {
      this.plot.setData(this.columns(), this.group.zoom === undefined);
      if (this.group.zoom) this.applyZoom();
    } else {
      this.shape = shape;
      this.rebuild();
    }
    this.say();
    this.describe();
    this.explain();
  }

  rebuild(): void {
    this.plot?.destroy();
    this.plot = undefined;
    if (this.plotBox.clientWidth === 0 || this.data.steps.length === 0) return;
    this.plot = new uPlot(this.uplotOptions(), this.columns(), this.plotBox);
    // A finger shows what a mouse does, across the curve, for up and down is the page's; two of them zoom.
    for (const kind of ["touchstart", "touchmove"] as const) {
      this.plot.over.addEventListener(kind, (event) => this.touch(event), { passive: true });
    }
    if (this.group.zoom) this.applyZoom();
  }

  resize(): void {
    const width = this.plotBox.clientWidth;
    if (width === 0) return;
    if (!this.plot) this.rebuild();
    else if (this.plot.width !== width) this.plot.setSize({ width, height: this.height() });
  }

  applyZoom(): void {
    if (!this.plot) return;
    const steps = this.data.steps;
    const [min, max] = this.group.zoom ?? [steps[0] ?? 0, steps.at(-1) ?? 1];
    this.plot.setScale("x", { min, max: max === min ? max + 1 : max });
  }

  // The cursor stands at that step, or nowhere. `own`: it is there already.
  show(step: number | null, own: boolean): void {
    this.at = step === null ? null : nearest(this.data.steps, step);
    if (this.plot && !own) {
      const left = step === null ? -10 : this.plot.valToPos(step, "x");
      this.plot.setCursor({ left, top: step === null ? -10 : 5 }, false);
    }
    this.say();
  }

  private height(): number {
    return this.options.height ?? 170;
  }

  private columns(): uPlot.AlignedData {
    const values = (line: Line) =>
      this.options.log ? line.values.map((value) => (value !== null && value > 0 ? value : null)) : line.values;
    return [this.data.steps, ...this.data.lines.map(values)];
  }

  private uplotOptions(): uPlot.Options {
    const axis = { stroke: css("--muted"), font: `11px ${css("--font")}`, ticks: { show: false } };
    const grid = { stroke: css("--grid"), width: 1 };
    const { format, log, zero, top, wide } = this.options;
    const short = (tick: number) => format(tick).replace(/\.0+(?= )/, ""); // "30.0 %" → "30 %"
    const series = this.data.lines.map(
      (line): uPlot.Series => ({
        label: line.label,
        stroke: css(line.color) + (line.faint ? "55" : ""),
        width: line.width ?? (line.faint ? 1 : 1.6),
        spanGaps: line.points ?? line.gaps ?? false,
        points: line.points ? { show: true, size: 5, fill: css(line.color) } : { show: false },
        ...(line.dash ? { dash: line.dash } : {}),
        ...(line.fill ? { fill: css(line.color) + "b0", width: 0 } : {}),
      }),
    );
    // Stacked areas: each is drawn down to the one below it.
    const stacked = this.data.lines.some((line) => line.fill);
    const bands = stacked ? this.data.lines.slice(1).map((_, i): uPlot.Band => ({ series: [i + 2, i + 1] })) : [];
    return {
      width: this.plotBox.clientWidth,
      height: this.height(),
      padding: [10, 12, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: false },
        y: {
          distr: log ? 3 : 1,
          ...(zero || stacked
            ? { range: (_: uPlot, __: number, max: number): [number, number] => [0, top ?? (max > 0 ? max * 1.08 : 1)] }
            : {}),
        },
      },
      axes: [
        {
          ...axis,
          grid,
          size: 26,
          values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? count(tick) : "")),
          ...(wide ? { label: "Step", labelSize: 16, labelGap: 0, labelFont: axis.font } : {}),
        },
        { ...axis, grid, size: 58, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick))) },
      ],
      series: [{}, ...series],
      bands,
      cursor: {
        y: false,
        points: { size: 7 },
        drag: { x: true, y: false, setScale: false, uni: 10 },
        bind: {
          dblclick: () => () => {
            this.group.setZoom(undefined);
            return null;
          },
        },
      },
      hooks: {
        setCursor: [(plot) => this.hover(plot)],
        setSelect: [(plot) => this.select(plot)],
        draw: [(plot) => this.drawMarkers(plot)],
      },
    };
  }

  private hover(plot: uPlot): void {
    const index = plot.cursor.idx;
    const inside = (plot.cursor.left ?? -1) >= 0;
    this.group.point(this, inside && index !== null && index !== undefined ? (this.data.steps[index] ?? null) : null);
  }

  private touch(event: TouchEvent): void {
    const [finger, other] = event.touches;
    if (!this.plot || !finger) return;
    const box = this.plot.over.getBoundingClientRect();
    const place = (touch: Touch) => Math.min(box.width, Math.max(0, touch.clientX - box.left));
    if (other) this.pinch(this.plot, place(finger), place(other), event.type === "touchstart");
    else this.plot.setCursor({ left: place(finger), top: 5 });
  }

  // What was under the two fingers at first is there again.
  private pinch(plot: uPlot, one: number, other: number, begins: boolean): void {
    if (begins) this.pinched = [plot.posToVal(one, "x"), plot.posToVal(other, "x")];
    if (begins || !this.pinched || Math.abs(other - one) < 10) return;
    const [at, too] = this.pinched;
    const perPixel = (too - at) / (other - one);
    if (perPixel <= 0) return;
    const min = at - one * perPixel;
    this.zoomTo(min, min + perPixel * plot.over.clientWidth);
  }

  private select(plot: uPlot): void {
    if (plot.select.width < 6) return;
    const min = plot.posToVal(plot.select.left, "x");
    const max = plot.posToVal(plot.select.left + plot.select.width, "x");
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.group.setZoom([min, max]);
  }

  // A line where something happened, with its sign at the top.
  private drawMarkers(plot: uPlot): void {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left - 6 * ratio, 0, bbox.width + 12 * ratio, bbox.top + bbox.height);
    ctx.clip();
    ctx.textAlign = "center";
    ctx.font = `${9 * ratio}px sans-serif`;
    const markers = (this.data.markers ?? []).toSorted((a, b) => KINDS.indexOf(b.kind) - KINDS.indexOf(a.kind));
    const taken: number[] = [];
    // In a small chart, or when there are many, lines would hide the curve: then the signs alone stay.
    const lines = this.options.wide && markers.length <= 60;
    for (const marker of markers) {
      const x = Math.round(plot.valToPos(marker.step, "x", true));
      const { color, glyph } = MARKERS[marker.kind];
      ctx.fillStyle = ctx.strokeStyle = css(color);
      if (lines) {
        ctx.globalAlpha = 0.35;
        ctx.setLineDash([3 * ratio, 3 * ratio]);
        ctx.lineWidth = ratio;
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
      }
      ctx.globalAlpha = 1;
      if (taken.some((other) => Math.abs(other - x) < MARKER_WIDTH * ratio)) continue;
      taken.push(x);
      ctx.fillText(glyph, x, bbox.top - ratio);
    }
    ctx.restore();
  }

  // What stands under the cursor, or at the end.
  private say(): void {
    const { steps, lines, markers = [] } = this.data;
    const parts = lines
      .filter((line) => !line.faint)
      .map((line) => {
        const values = line.shown ?? line.values;
        const index = this.at ?? steps.length - 1;
        let value = values[index];
        // Of what is measured now and then, the last one so far.
        if (line.points || line.gaps)
          for (let i = index; i >= 0 && (value === null || value === undefined); --i) value = values[i];
        return { line, text: this.options.format(value) };
      });
    this.readout.replaceChildren(
      ...(this.at === null ? [] : [h("span", { class: "step" }, `step ${count(steps[this.at])}`)]),
      ...parts.map(({ line, text }) => {
        const dot = h("span", { class: "dot" });
        dot.style.background = `var(${line.color})`;
        const label = lines.length > 1 && h("span", { class: "line", title: line.label }, line.label);
        return h("span", { class: "value" }, dot, label, h("b", {}, text));
      }),
    );
    if (this.at === null) return;
    const here = steps[this.at]!;
    const reach = Math.max(0.5, ((this.plot?.scales["x"]?.max ?? here) - (this.plot?.scales["x"]?.min ?? here)) / 120);
    const near = markers.filter((marker) => Math.abs(marker.step - here) <= reach).slice(0, 3);
    for (const marker of near) {
      this.readout.append(h("span", { class: `mark ${marker.kind}` }, `${MARKERS[marker.kind].glyph} ${marker.text}`));
    }
  }

  private explain(): void {
    const there = new Set((this.data.markers ?? []).map((marker) => marker.kind));
    const kinds = KINDS.filter((kind) => there.has(kind));
    fill(this.legend, ...kinds.map((kind) => h("span", {}, `${MARKERS[kind].glyph} ${MARKERS[kind].means}`)));
  }

  // For those who hear the page.
  private describe(): void {
    const { steps, lines } = this.data;
    const of = (line: Line) => {
      const values = (line.shown ?? line.values).filter((value): value is number => value !== null);
      if (values.length === 0) return `${line.label}: no values`;
      const low = values.reduce((a, b) => Math.min(a, b));
      const high = values.reduce((a, b) => Math.max(a, b));
      const { format } = this.options;
      return `${line.label}: now ${format(values.at(-1))}, between ${format(low)} and ${format(high)}`;
    };
    const text = [
      `${this.options.title}, steps ${steps[0] ?? 0} to ${steps.at(-1) ?? 0}`,
      ...lines.filter((line) => !line.faint).map(of),
    ];
    this.plotBox.setAttribute(
      "aria-label",
      `${text.join(". ")}. Arrow keys move along the steps, plus and minus zoom, Escape shows all.`,
    );
  }

  // Shows `factor` times as many steps, around the cursor.
  private scale(factor: number): void {
    const { steps } = this.data;
    const [first, last] = [steps[0] ?? 0, steps.at(-1) ?? 0];
    const [min, max] = this.group.zoom ?? [first, last];
    const center = this.at === null ? (min + max) / 2 : steps[this.at]!;
    this.zoomTo(center - factor * (center - min), center + factor * (max - center));
  }

  // Within what there is; all of it is no zoom.
  private zoomTo(min: number, max: number): void {
    const [first, last] = [this.data.steps[0] ?? 0, this.data.steps.at(-1) ?? 0];
    const [from, to] = [Math.max(first, min), Math.min(last, max)];
    if (from <= first && to >= last) this.group.setZoom(undefined);
    else if (to - from >= 2) this.group.setZoom([from, to]);
  }

  private key(event: KeyboardEvent): void {
    const { steps } = this.data;
    if (event.key === "Escape") return this.group.setZoom(undefined);
    if (event.key === "+" || event.key === "=") return this.scale(0.5);
    if (event.key === "-") return this.scale(2);
    const [low, high] = [0, steps.length - 1];
    const page = Math.max(1, Math.round(steps.length / 20));
    const moves: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, PageUp: -page, PageDown: page };
    let to = this.at ?? high;
    if (event.key in moves) to += moves[event.key]!;
    else if (event.key === "Home") to = low;
    else if (event.key === "End") to = high;
    else return;
    event.preventDefault();
    const step = steps[Math.min(high, Math.max(low, to))];
    if (step === undefined) return;
    this.group.point(this, step);
    this.show(step, false);
    live(`${this.options.title}: ${this.readout.textContent ?? ""}`);
  }
}

// Said once, by a screen reader.
const spoken = h("p", { class: "hidden", "aria-live": "polite" });
export function live(text: string): void {
  if (!spoken.isConnected) document.getElementById("top")!.append(spoken);
  setText(spoken, text);
}

// An exponential mean without the bias of its beginning (as Adam has it); 0 leaves values as they are.
export function smooth(values: Column, weight: number): Column {
  if (weight === 0) return values;
  let mean = 0;
  let bias = 1;
  return values.map((value) => {
    if (value === null || !Number.isFinite(value)) return null;
    mean = weight * mean + (1 - weight) * value;
    bias *= weight;
    return mean / (1 - bias);
  });
}

// Sums of each column with those before it.
export function stacked(columns: Column[]): Column[] {
  const sums: number[] = [];
  return columns.map((column) => column.map((value, i) => (sums[i] = (sums[i] ?? 0) + (value ?? 0))));
}
