// SPDX-License-Identifier: Apache-2.0
// Light, dark, or as the system has it.

const KEY = "temper.theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" } as const;
export type Theme = keyof typeof NEXT;

const watchers = new Set<() => void>();

export function theme(): Theme {
  const kept = localStorage.getItem(KEY);
  return kept === "light" || kept === "dark" ? kept : "auto";
}

function apply(): void {
  const wanted = theme();
  const dark = wanted === "dark" || (wanted === "auto" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset["theme"] = dark ? "dark" : "light";
  for (const watcher of watchers) watcher();
}

export function switchTheme(): Theme {
  localStorage.setItem(KEY, NEXT[theme()]);
  apply();
  return theme();
}

// Calls `watcher` when colours have changed, until the returned function is called.
export function onTheme(watcher: () => void): () => void {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

export function startTheme(): void {
  apply();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
}
