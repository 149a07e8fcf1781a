// SPDX-License-Identifier: Apache-2.0
// What follows from a job's record.

import { idOf, type Job, type StepMetrics } from "./api";

export const ENDED = ["SUCCEEDED", "FAILED", "CANCELLED"];

export function stateOf(job: Job): string {
  return job.state.replace("JOB_STATE_", "");
}

export function hasEnded(job: Job): boolean {
  return ENDED.includes(stateOf(job));
}

const PHASES: Record<string, string> = {
  PHASE_PREPARING_DATA: "preparing the data",
  PHASE_LOADING_MODEL: "loading the model",
  PHASE_TRAINING: "training",
  PHASE_EXPORTING: "exporting",
  PHASE_VERIFYING: "verifying the export",
};

export function phaseOf(job: Job): string {
  return stateOf(job) === "RUNNING" ? (PHASES[job.phase ?? ""] ?? "") : "";
}

export function title(job: Job): string {
  return job.spec.display_name || idOf(job);
}

export function number(value: string | number | undefined | null): number {
  return Number(value ?? NaN);
}

export function steps(job: Job): { now: number; all: number } {
  return { now: Number(job.current_step ?? 0), all: Number(job.total_steps ?? job.latest_step?.total_steps ?? 0) };
}

// The job when it has taken that step.
export function withStep(job: Job, step: StepMetrics | undefined): Job {
  if (!step) return job;
  return { ...job, latest_step: step, current_step: step.step, total_steps: step.total_steps ?? job.total_steps };
}

// Seconds until the last step, at the pace of the newest one or of `pace`; undefined: nobody knows.
export function timeLeft(job: Job, pace?: number): number | undefined {
  const { now, all } = steps(job);
  const seconds = pace ?? job.latest_step?.seconds;
  if (stateOf(job) !== "RUNNING" || job.phase !== "PHASE_TRAINING" || !seconds || all <= now) return undefined;
  return (all - now) * seconds;
}

// In milliseconds, as Date has them.
export function created(job: Job): number {
  return Date.parse(job.create_time ?? "");
}

// In seconds, from the creation on; for one that runs until `now`.
export function age(job: Job, now: number): number {
  return ((job.end_time ? Date.parse(job.end_time) : now) - created(job)) / 1000;
}

export function tokensPerSecond(job: Job): number | undefined {
  const step = job.latest_step;
  return step?.seconds ? number(step.tokens) / step.seconds : undefined;
}

export const CATEGORIES = [
  ["training", "--c1"],
  ["lost", "--bad"],
  ["checkpointing", "--c3"],
  ["validating", "--c4"],
  ["exporting", "--c5"],
  ["starting", "--c2"],
  ["checking", "--c6"],
  ["queued", "--muted"],
  ["stopping", "--warn"],
  ["paused", "--c7"],
  ["other", "--line"],
] as const;

export function timeSpent(job: Job): { name: string; color: string; seconds: number }[] {
  return CATEGORIES.map(([name, color]) => ({ name, color, seconds: Number(job.time_spent?.[name] ?? 0) })).filter(
    (part) => part.seconds > 0,
  );
}

export function goodput(job: Job): number | undefined {
  const parts = timeSpent(job);
  const all = parts.reduce((sum, part) => sum + part.seconds, 0);
  const training = parts.find((part) => part.name === "training")?.seconds ?? 0;
  return all > 0 && training > 0 ? training / all : undefined;
}

// "…/models/SmolLM2-135M" → "SmolLM2-135M".
export function lastPart(uri: string | undefined): string {
  return uri?.replace(/\/+$/, "").split("/").pop() ?? "";
}
