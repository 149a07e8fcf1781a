// SPDX-License-Identifier: Apache-2.0
// Figures for people.

const NONE = "–";

export function known(value: number | null | undefined): value is number {
  return value !== null && value !== undefined && Number.isFinite(value);
}

// Four significant digits: "2.333", "0.0039", "1.2e-7".
export function figure(value: number | null | undefined): string {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(2).replace("e+", "e");
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(4)));
}

// "12,345", "1.2 M".
export function count(value: number | null | undefined): string {
  if (!known(value)) return NONE;
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toFixed(1)} G`;
  if (size >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return Math.round(value).toLocaleString("en");
}

export function percent(value: number | null | undefined, digits = 0): string {
  return known(value) ? `${(100 * value).toFixed(digits)} %` : NONE;
}

// Of what is there, however little of it.
export function part(value: number): string {
  return value > 0 && value < 0.005 ? "<1 %" : percent(value);
}

export function bytes(value: number | null | undefined): string {
  if (!known(value)) return NONE;
  let size = value;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (Math.abs(size) < 1000) return `${unit === "B" ? size : size.toFixed(1)} ${unit}`;
    size /= 1000;
  }
  return `${size.toFixed(1)} TB`;
}

// "8 s", "3 min 20 s", "5 h 12 min", "3 d 4 h".
export function duration(seconds: number | null | undefined): string {
  if (!known(seconds)) return NONE;
  if (seconds <= 0) return "0 s";
  if (seconds < 1) return `${Number((1000 * seconds).toPrecision(2))} ms`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  const parts: [number, string][] = [
    [Math.floor(whole / 86400), "d"],
    [Math.floor(whole / 3600) % 24, "h"],
    [Math.floor(whole / 60) % 60, "min"],
    [whole % 60, "s"],
  ];
  const first = parts.findIndex(([amount]) => amount > 0);
  return parts
    .slice(first, first + 2)
    .filter(([amount]) => amount > 0)
    .map(([amount, unit]) => `${amount} ${unit}`)
    .join(" ");
}

export function ago(seconds: number): string {
  return seconds < 5 ? "just now" : `${duration(Math.round(seconds)).split(" ").slice(0, 2).join(" ")} ago`;
}

export function clock(time: Date): string {
  return time.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function day(time: Date): string {
  return `${time.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" })}, ${clock(time)}`;
}
