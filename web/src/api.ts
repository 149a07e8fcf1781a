// SPDX-License-Identifier: Apache-2.0
// What the server says: JSON of proto/temper/v1/training_service.proto. What is absent has its default; 64-bit integers
// come as strings.

export interface StepMetrics {
  step: string;
  loss?: number | string; // "NaN", "Infinity"
  grad_norm?: number | string;
  learning_rate?: number;
  tokens?: string;
  padding_ratio?: number;
  seconds?: number;
  mfu?: number;
  hfu?: number;
  peak_memory_bytes?: string;
  total_tokens?: string;
  total_steps?: string;
  epoch?: number;
  skipped?: boolean;
  phases?: Record<string, number>;
  objective?: Record<string, number | string>;
}

export interface PreflightReport {
  samples?: {
    pieces?: { text?: string; scored?: boolean }[];
    tokens?: string;
    scored_tokens?: string;
    part?: string;
  }[];
  data?: Record<string, string | number>;
  total_steps?: string;
  estimated_seconds?: number;
  memory?: Record<string, string>;
  backend?: string;
  backend_reason?: string;
  checks?: { severity?: string; text?: string }[];
}

export interface Validation {
  step?: string;
  loss?: number | string;
  best?: boolean;
  seconds?: number;
}

export interface Job {
  name: string;
  spec: {
    display_name?: string;
    owner?: string;
    labels?: Record<string, string>;
    priority?: number;
    model?: { uri?: string };
    lora?: { rank?: number };
    [section: string]: unknown;
  };
  state: string;
  target?: string;
  reason?: string;
  cause?: string;
  create_time?: string;
  start_time?: string;
  end_time?: string;
  epoch?: number;
  restarts?: number;
  latest_step?: StepMetrics;
  total_steps?: string;
  current_step?: string;
  export_uri?: string;
  phase?: string;
  last_sequence?: string;
  checkpoint_step?: string;
  latest_validation?: Validation;
  best_validation?: Validation;
  queue_position?: number;
  preflight?: PreflightReport;
  preflight_only?: boolean;
  time_spent?: Record<string, number | string>;
  verdict?: { passed?: boolean; reasons?: string[]; table?: string };
  backend?: { backend?: string; reason?: string };
}

export interface LogLine {
  severity?: string;
  text?: string;
  rank?: number;
}

export interface JobEvent {
  sequence: string;
  time: string;
  state?: { state: string; reason?: string; cause?: string; epoch?: number };
  step?: StepMetrics;
  log?: LogLine;
  phase?: { phase: string };
  export?: { uri?: string; bytes?: string; files?: number; proof?: Record<string, unknown> };
  checkpoint?: { step?: string; epoch?: number; bytes?: string; best?: boolean; pause_seconds?: number };
  resumption?: { step?: string; lost_steps?: string };
  validation?: Validation;
  backend?: { backend?: string; reason?: string };
}

// What a job has been through; of its steps when each ended, in seconds since the job was created.
export interface Past {
  last_sequence: number;
  times: { step: number[]; seconds: number[] };
  events: JobEvent[];
}

export type Column = (number | null)[];
export type Columns = Record<string, Column>;

export interface Checkpoint {
  step?: string;
  epoch?: number;
  uri?: string;
  size_bytes?: string;
  files?: number;
  commit_time?: string;
  best?: boolean;
}

export interface Artifact {
  path: string;
  size_bytes?: string;
  sha256?: string;
}

export interface Session {
  version: string;
  tokens: boolean;
  name: string;
  role: string;
  time: number;
}

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

// Whether somebody has to do something about it, for a token is gone, or a job: not that the server is away, or busy.
export function isFinal(error: unknown): boolean {
  return error instanceof ApiError && error.status < 500 && error.status !== 429;
}

const TOKEN = "temper.token";

// Of this tab alone: another tab, or another day, asks again.
export function token(): string {
  return sessionStorage.getItem(TOKEN) ?? "";
}

export function setToken(value: string): void {
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

export async function request(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  if (token()) headers.set("Authorization", `Bearer ${token()}`);
  const response = await fetch(path, { ...options, headers, credentials: "omit" });
  if (!response.ok) throw new ApiError(response.status, (await response.text()).trim() || response.statusText);
  return response;
}

async function get<T>(path: string): Promise<T> {
  return (await request(`/api/v1/${path}`)).json() as Promise<T>;
}

async function post<T>(path: string): Promise<T> {
  return (await request(`/api/v1/${path}`, { method: "POST" })).json() as Promise<T>;
}

export function idOf(job: { name: string }): string {
  return job.name.replace(/^jobs\//, "");
}

const at = (id: string, rest = ""): string => `jobs/${encodeURIComponent(id)}${rest}`;

export const api = {
  session: () => get<Session>("session"),
  jobs: (page = "") =>
    get<{ jobs?: Job[]; next_page_token?: string; time: string }>(`jobs?page_token=${encodeURIComponent(page)}`),
  job: (id: string) => get<Job>(at(id)),
  metrics: (id: string, points: number) => get<Columns & { total_steps: number }>(at(id, `/metrics?points=${points}`)),
  history: (id: string) => get<Past>(at(id, "/history")),
  checkpoints: (id: string) => get<{ checkpoints?: Checkpoint[] }>(at(id, "/checkpoints")),
  artifacts: (id: string, checkpoint = "") =>
    get<{ artifacts?: Artifact[] }>(at(id, `/artifacts?checkpoint=${encodeURIComponent(checkpoint)}`)),
  sparklines: (ids: string[]) =>
    get<Record<string, Column>>(`sparklines?jobs=${ids.map(encodeURIComponent).join(",")}`),
  ticket: (id: string, path: string, checkpoint = "") =>
    post<{ url: string }>(
      at(id, `/tickets?path=${encodeURIComponent(path)}&checkpoint=${encodeURIComponent(checkpoint)}`),
    ),
  control: (id: string, action: "cancel" | "pause" | "resume") => post<Job>(at(id, `/${action}`)),
};
