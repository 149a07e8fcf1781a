// SPDX-License-Identifier: Apache-2.0
// The steps of a job by column, as they come.

import type { Column, Columns, JobEvent, StepMetrics } from "./api";
import type { Marker } from "./charts";
import { duration, figure } from "./format";

export const PHASES = ["forward", "backward", "optimizer", "communication", "data", "checkpoint", "other"] as const;

function finite(value: unknown): number | null {
  const number = Number(value ?? NaN);
  return Number.isFinite(number) ? number : null;
}

export class StepHistory {
  readonly columns: Record<string, Column> = {};
  readonly validation = new Map<number, number>();
  private readonly times = new Map<number, number>(); // when a step ended, in seconds since the job's creation
  readonly markers = new Map<string, Marker>();

  get steps(): number[] {
    return (this.columns["step"] ?? []) as number[];
  }

  // Whether the job learns from pairs of answers.
  get hasPairs(): boolean {
    return "rewards/margins" in this.columns;
  }

  load(columns: Columns): void {
    for (const [name, values] of Object.entries(columns)) if (Array.isArray(values)) this.columns[name] = values;
  }

  loadTimes(times: { step: number[]; seconds: number[] }): void {
    times.step.forEach((step, i) => this.times.set(step, times.seconds[i]!));
  }

  addTime(step: number, seconds: number): void {
    this.times.set(step, seconds);
  }

  // The share of the wall-clock time up to each step in which steps were taken, each counted once.
  goodput(): Column {
    const seconds = this.column("seconds");
    const stopped = this.column("checkpoint");
    let sum = 0;
    return this.steps.map((step, i) => {
      // A thinned history has one step for several.
      sum += ((seconds[i] ?? 0) - (stopped[i] ?? 0)) * (step - (this.steps[i - 1] ?? 0));
      const all = this.times.get(step);
      return all ? Math.min(1, sum / all) : null;
    });
  }

  // One that is taken again takes the place of the first: so it is in the server.
  add(step: StepMetrics): void {
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
    const steps = this.steps;
    let index = steps.length;
    while (index > 0 && steps[index - 1]! >= at) --index;
    const replaces = steps[index] === at;
    for (const [name, value] of Object.entries(values)) {
      const column = (this.columns[name] ??= []);
      column.splice(index, replaces ? 1 : 0, value);
    }
  }

  // What is no step, and shows on charts.
  mark(event: JobEvent, step: number): void {
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
      this.markers.set(key, { step: named ? Number(named[1]) : step, kind: "spike", text: "spike" });
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

  validationColumn(): Column {
    return this.steps.map((step) => this.validation.get(step) ?? null);
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
