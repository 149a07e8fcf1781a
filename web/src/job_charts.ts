// SPDX-License-Identifier: Apache-2.0
// The charts of one job.

import { chartControls, keptSmoothing } from "./chart_controls";
import { type Chart, ChartGroup, type Line, smooth, stacked } from "./charts";
import { h } from "./dom";
import { bytes, count, duration, figure, percent } from "./format";
import { PHASES, type StepHistory } from "./history";

const PHASE_COLORS = ["--c1", "--c2", "--c3", "--c4", "--c6", "--c5", "--line"];

export class JobCharts {
  readonly element: HTMLElement;
  readonly group = new ChartGroup();
  private readonly charts: Record<string, Chart> = {};
  private smoothing = keptSmoothing();
  private logLoss = false;

  constructor(private readonly history: StepHistory) {
    const add = (name: string, options: Parameters<ChartGroup["add"]>[0]) =>
      (this.charts[name] = this.group.add(options)).element;
    const loss = add("loss", {
      title: "Loss",
      hint: "A mean over the scored tokens of each step, or over its pairs",
      format: figure,
      height: 300,
      wide: true,
    });
    loss.querySelector("figcaption")!.append(this.controls());
    this.element = h(
      "section",
      { class: "charts", "aria-label": "Charts" },
      loss,
      add("rewards", {
        title: "Rewards",
        hint: "Of the answers in each step; the margin is how far the chosen ones are ahead",
        format: figure,
      }),
      add("accuracy", {
        title: "Reward accuracy",
        hint: "The share of pairs whose chosen answer has the higher reward",
        format: (value) => percent(value, 1),
        zero: true,
        top: 1,
      }),
      add("teacher", {
        title: "Distillation",
        hint: "How far the model is from its teacher, and both from the data's tokens; means over the scored tokens",
        format: figure,
      }),
      add("agreement", {
        title: "Agreement",
        hint: "The share of tokens at which model and teacher find the same one most probable",
        format: (value) => percent(value, 1),
        zero: true,
        top: 1,
      }),
      add("learning_rate", { title: "Learning rate", format: figure, zero: true }),
      add("grad_norm", { title: "Gradient norm", hint: "Global, before clipping", format: figure }),
      add("speed", { title: "Tokens/s", format: (value) => count(value), zero: true }),
      add("mfu", {
        title: "FLOPs utilization",
        hint: "Useful FLOPs over time × peak; HFU counts what is computed twice too",
        format: (value) => percent(value, 1),
        zero: true,
      }),
      add("memory", { title: "Memory", hint: "The most that a rank had so far", format: bytes, zero: true }),
      add("padding", {
        title: "Padding",
        hint: "As a share of all positions",
        format: (value) => percent(value, 1),
        zero: true,
      }),
      add("phases", { title: "Where a step's time goes", format: duration, zero: true, broad: true }),
      add("goodput", {
        title: "Goodput",
        hint: "The share of the time since the job was created in which steps were taken, each counted once",
        format: (value) => percent(value, 1),
        zero: true,
        top: 1,
      }),
    );
  }

  private controls(): HTMLElement {
    const log = h(
      "button",
      {
        class: "chip",
        "aria-pressed": "false",
        click: () => {
          this.logLoss = !this.logLoss;
          log.setAttribute("aria-pressed", String(this.logLoss));
          this.charts["loss"]!.options.log = this.logLoss;
          this.charts["loss"]!.rebuild();
        },
      },
      "Log scale",
    );
    const smooth = (value: number) => {
      this.smoothing = value;
      this.drawLoss();
    };
    return chartControls(this.group, smooth, log);
  }

  draw(): void {
    const { history } = this;
    const steps = history.steps;
    const markers = history.allMarkers();
    this.drawLoss();
    const one = (chart: string, label: string, values: Line["values"], color = "--c1") =>
      this.charts[chart]!.set({ steps, lines: [{ label, color, values }], markers });
    const ofModel = history.hasRewards;
    for (const chart of ["rewards", "accuracy"])
      this.charts[chart]!.element.hidden = !history.hasPreferences && !ofModel;
    one("accuracy", "Accuracy", history.column(ofModel ? "accuracy" : "rewards/accuracies"), "--c3");
    const margin = history.column(ofModel ? "margin" : "rewards/margins");
    this.charts["rewards"]!.set({
      steps,
      markers,
      lines: [
        ...(ofModel
          ? [
              { label: "highest", color: "--c3", values: history.column("max_reward") },
              { label: "mean", color: "--c2", values: history.column("mean_reward") },
              { label: "lowest", color: "--c4", values: history.column("min_reward") },
            ]
          : [
              { label: "chosen", color: "--c3", values: history.column("rewards/chosen") },
              { label: "rejected", color: "--c4", values: history.column("rewards/rejected") },
            ]),
        { label: "margin", color: "--c1", values: margin, dash: [4, 3] },
      ],
    });
    for (const chart of ["teacher", "agreement"]) this.charts[chart]!.element.hidden = !history.hasTeacher;
    one("agreement", "Agreement", history.column("distillation/agreement"), "--c3");
    this.charts["teacher"]!.set({
      steps,
      markers,
      lines: [
        { label: "divergence", color: "--c1", values: history.column("distillation/divergence") },
        { label: "cross-entropy", color: "--c4", values: history.column("distillation/cross_entropy") },
        {
          label: "the teacher's",
          color: "--c3",
          values: history.column("distillation/teacher_cross_entropy"),
          dash: [4, 3],
        },
      ],
    });
    one("learning_rate", "Learning rate", history.column("learning_rate"), "--c2");
    one("grad_norm", "Gradient norm", history.column("grad_norm"), "--c4");
    one("speed", "Tokens/s", history.speed(), "--c3");
    one("memory", "Memory", history.column("peak_memory_bytes"), "--c5");
    this.charts["goodput"]!.set({
      steps,
      markers,
      lines: [{ label: "Goodput", color: "--c7", values: history.goodput(), gaps: true }],
    });
    one("padding", "Padding", history.column("padding_ratio"), "--c6");
    this.charts["mfu"]!.set({
      steps,
      markers,
      lines: [
        { label: "HFU", color: "--c2", values: history.column("hfu"), dash: [4, 3] },
        { label: "MFU", color: "--c1", values: history.column("mfu") },
      ],
    });
    const used = PHASES.map((name, i) => ({ name, color: PHASE_COLORS[i]!, shown: history.column(name) })).filter(
      ({ shown }) => shown.some((value) => (value ?? 0) > 0),
    );
    const sums = stacked(used.map(({ shown }) => shown));
    // The tallest is drawn first, and those below it cover it.
    this.charts["phases"]!.set({
      steps,
      markers,
      lines: used.map(({ name, color, shown }, i) => ({ label: name, color, values: sums[i]!, shown, fill: true })),
    });
  }

  private drawLoss(): void {
    const { history } = this;
    const raw = history.column("loss");
    const lines: Line[] = [
      { label: "raw", color: "--c1", values: raw, faint: this.smoothing > 0 },
      ...(this.smoothing > 0
        ? [{ label: "training", color: "--c1", values: smooth(raw, this.smoothing), width: 2 }]
        : []),
      ...(history.validation.size > 0
        ? [{ label: "validation", color: "--c2", values: history.validationColumn(), points: true, width: 1.5 }]
        : []),
    ];
    this.charts["loss"]!.set({ steps: history.steps, lines, markers: history.allMarkers() });
  }
}
