// SPDX-License-Identifier: Apache-2.0
// The steps of a job by column, as they come.

import { api, type Column, type Columns, type Job, type JobEvent, type Past, type StepMetrics } from "./api";
import type { Marker } from "./charts";
import { duration, figure } from "./format";
import { firstFrom, nearest, StepTimes, thinned } from "./step_times";

export const PHASES = ["forward", "backward", "optimizer", "communication", "data", "checkpoint", "other"] as const;

function finite(value: unknown): number | null {
  const number = Number(value ?? NaN);
  return Number.isFinite(number) ? number : null;
}

export class StepHistory {
  columns: Record<string, Column> = {};
  readonly validation = new Map<number, number>();
  readonly markers = new Map<string, Marker>();
  private readonly times: StepTimes;

  // `most` steps, as the server thins them; of what comes live up to as many again, before that is thinned too.
  constructor(private readonly most: number) {
    this.times = new StepTimes(most);
  }

  get steps(): number[] {
    return (this.columns["step"] ?? []) as number[];
  }

  // Whether the job prefers one of two answers.
  get hasPreferences(): boolean {
    return "rewards/margins" in this.columns;
  }

  // Whether it learns from a teacher, or from what samples bring of one.
  get hasTeacher(): boolean {
    return "distillation/divergence" in this.columns;
  }

  // Whether it trains a reward model.
  get hasRewards(): boolean {
    return "mean_reward" in this.columns;
  }

  // From the server. What comes after `last_sequence` is in the stream, so the rest is read after it.
  async read(id: string): Promise<{ job: Job; past: Past }> {
    const past = await api.history(id);
    const [job, columns] = await Promise.all([api.job(id), api.metrics(id, this.most)]);
    this.load(columns, past);
    return { job, past };
  }

  load(columns: Columns, past: Past): void {
    for (const [name, values] of Object.entries(columns)) if (Array.isArray(values)) this.columns[name] = values;
    past.times.step.forEach((step, i) => this.times.add(step, past.times.seconds[i]!));
    past.events.forEach((event) => this.mark(event));
  }

  // The share of the wall-clock time up to each step in which steps were taken, each counted once.
  goodput(): Column {
    const seconds = this.column("seconds");
    const stopped = this.column("checkpoint");
    let sum = 0;
    return this.steps.map((step, i) => {
      // A thinned history has one step for several. The first is one, also of a job that goes on from another's steps.
      sum += ((seconds[i] ?? 0) - (stopped[i] ?? 0)) * (i > 0 ? step - this.steps[i - 1]! : 1);
      const all = this.times.at(step);
      return all ? Math.min(1, sum / all) : null;
    });
  }

  // What comes live, of a job that was created at `created` (in milliseconds).
  take(event: JobEvent, created: number): void {
    if (!event.step) return this.mark(event);
    this.add(event.step);
    this.times.add(Number(event.step.step), (Date.parse(event.time) - created) / 1000);
  }

  // One that is taken again takes the place of the first: so it is in the server.
  private add(step: StepMetrics): void {
    const at = Number(step.step);
    const values: Record<string, number | null> = {
      step: at,
      loss: finite(step.loss ?? 0),
      grad_norm: finite(step.grad_norm ?? 0),
      learning_rate: finite(step.learning_rate ?? 0),
      tokens: finite(step.tokens ?? 0),
      seconds: finite(step.seconds ?? 0),
      mfu: finite(step.mfu),
      hfu: finite(step.hfu),
      padding_ratio: finite(step.padding_ratio ?? 0),
      peak_memory_bytes: finite(step.peak_memory_bytes ?? 0),
      skipped: step.skipped ? 1 : 0,
    };
    for (const phase of PHASES) values[phase] = step.phases?.[phase] ?? 0;
    for (const [name, value] of Object.entries(step.objective ?? {})) values[name] = finite(value);
    const index = firstFrom(this.steps, at);
    const replaces = this.steps[index] === at;
    for (const [name, value] of Object.entries(values)) {
      const column = (this.columns[name] ??= []);
      column.splice(index, replaces ? 1 : 0, value);
    }
    if (this.steps.length <= 2 * this.most) return;
    const kept = thinned(this.steps, this.most);
    for (const [name, column] of Object.entries(this.columns)) this.columns[name] = kept.map((i) => column[i]!);
  }

  // What is no step, and shows on charts.
  private mark(event: JobEvent): void {
    const key = event.sequence;
    if (event.checkpoint) {
      const best = event.checkpoint.best ? ", the best so far" : "";
      this.markers.set(key, {
        step: Number(event.checkpoint.step),
        kind: event.checkpoint.best ? "best" : "checkpoint",
        text: `checkpoint ${event.checkpoint.step ?? ""}${best}`,
      });
    } else if (event.resumption) {
      const lost = Number(event.resumption.lost_steps ?? 0);
      this.markers.set(key, {
        step: Number(event.resumption.step ?? 0),
        kind: "restart",
        text: lost > 0 ? `restarted, ${lost} steps again` : "restarted",
      });
    } else if (event.validation) {
      const loss = finite(event.validation.loss ?? 0);
      if (loss !== null) this.validation.set(Number(event.validation.step ?? 0), loss);
    } else if (event.log && /\bspike\b/i.test(event.log.text ?? "")) {
      const named = /step (\d+)/.exec(event.log.text ?? "");
      this.markers.set(key, {
        step: named ? Number(named[1]) : (this.steps.at(-1) ?? 0),
        kind: "spike",
        text: "spike",
      });
    }
  }

  // Of steps that changed no weight, too.
  allMarkers(): Marker[] {
    const skipped = this.columns["skipped"] ?? [];
    // The best checkpoint so far is the best; those before it were.
    const best = Math.max(...[...this.markers.values()].map((marker) => (marker.kind === "best" ? marker.step : 0)));
    const found = [...this.markers.values()].map(
      (marker): Marker =>
        marker.kind === "best" && marker.step < best
          ? { ...marker, kind: "checkpoint", text: `checkpoint ${marker.step}` }
          : marker,
    );
    const spikes = new Set(found.filter((marker) => marker.kind === "spike").map((marker) => marker.step));
    this.steps.forEach((step, i) => {
      if (skipped[i] && !spikes.has(step)) found.push({ step, kind: "spike", text: "skipped: it changed no weight" });
    });
    return found.sort((a, b) => a.step - b.step);
  }

  column(name: string): Column {
    return this.columns[name] ?? [];
  }

  // At the steps that are there: a thinned history may lack the one that was validated.
  validationColumn(): Column {
    const column: Column = new Array(this.steps.length).fill(null);
    for (const [step, loss] of this.validation) {
      const index = nearest(this.steps, step);
      if (index !== null) column[index] = loss;
    }
    return column;
  }

  speed(): Column {
    const tokens = this.column("tokens");
    return this.column("seconds").map((seconds, i) => (seconds ? (tokens[i] ?? 0) / seconds : null));
  }

  // The median of the newest steps: a checkpoint in one of them says nothing of the others.
  pace(): number | undefined {
    const newest = this.column("seconds")
      .slice(-25)
      .filter((value): value is number => value !== null);
    return newest.sort((a, b) => a - b)[Math.floor(newest.length / 2)];
  }
}

// An event in one line, for people.
export function inWords(event: JobEvent): { text: string; kind: string } | undefined {
  if (event.state) {
    const state = event.state.state.replace("JOB_STATE_", "");
    return { text: [state, event.state.reason].filter(Boolean).join(": "), kind: "state" };
  }
  if (event.checkpoint)
    return {
      text: `checkpoint ${event.checkpoint.step ?? 0} committed${event.checkpoint.best ? ", the best so far" : ""}`,
      kind: "checkpoint",
    };
  if (event.export) return { text: `exported ${event.export.files ?? 0} files`, kind: "checkpoint" };
  if (event.resumption)
    return {
      text: `goes on from step ${event.resumption.step ?? 0}, ${event.resumption.lost_steps ?? 0} steps are taken again`,
      kind: "restart",
    };
  if (event.validation)
    return {
      text: `validation after step ${event.validation.step ?? 0}: loss ${figure(Number(event.validation.loss))} (${duration(event.validation.seconds)})`,
      kind: "validation",
    };
  if (event.phase)
    return { text: event.phase.phase.replace("PHASE_", "").toLowerCase().replaceAll("_", " "), kind: "state" };
  if (event.backend)
    return { text: `backend ${event.backend.backend ?? ""}: ${event.backend.reason ?? ""}`, kind: "state" };
  return undefined;
}
