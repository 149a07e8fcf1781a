// SPDX-License-Identifier: Apache-2.0
// The newest lines of a job's log, with what happened to it between them.

import { h, setText, throttled } from "./dom";

export interface Entry {
  time: string;
  severity: string; // INFO, WARNING, ERROR, or EVENT
  text: string;
  rank: number | undefined;
}

const MOST = 5000;
const LEVELS = ["All", "Warnings", "Errors"] as const;

export class LogView {
  readonly element: HTMLElement;
  private entries: Entry[] = [];
  private fresh: Entry[] = [];
  private level = 0;
  private readonly lines = h("ol", { class: "log", tabindex: 0, "aria-label": "Log" });
  private readonly search = h("input", {
    type: "search",
    placeholder: "Search the log",
    "aria-label": "Search the log",
    input: () => this.redraw(),
  });
  private readonly none = h("p", { class: "empty" }, "Nothing yet.");
  private readonly chips = LEVELS.map((name, i) =>
    h(
      "button",
      {
        class: "chip",
        "aria-pressed": String(i === 0),
        click: () => {
          this.level = i;
          this.chips.forEach((chip, at) => chip.setAttribute("aria-pressed", String(at === i)));
          this.redraw();
        },
      },
      name,
    ),
  );

  constructor() {
    this.lines.hidden = true;
    this.element = h(
      "div",
      {},
      h(
        "div",
        { class: "toolbar" },
        this.search,
        h("div", { class: "chips", role: "group", "aria-label": "Severity" }, ...this.chips),
      ),
      this.none,
      this.lines,
    );
  }

  add(entry: Entry): void {
    this.entries.push(entry);
    this.fresh.push(entry);
    if (this.entries.length > MOST) this.entries.splice(0, this.entries.length - MOST);
    this.append();
  }

  // It has become visible.
  show(): void {
    this.lines.scrollTop = this.lines.scrollHeight;
  }

  private readonly append = throttled(100, () => {
    const atEnd = this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 40;
    this.lines.append(...this.fresh.filter((entry) => this.matches(entry)).map(line));
    this.fresh = [];
    while (this.lines.childElementCount > MOST) this.lines.firstElementChild!.remove();
    this.none.hidden = this.lines.childElementCount > 0;
    this.lines.hidden = !this.none.hidden;
    if (atEnd) this.show();
  });

  private redraw(): void {
    this.fresh = [];
    this.lines.replaceChildren(...this.entries.filter((entry) => this.matches(entry)).map(line));
    const found = this.lines.childElementCount > 0;
    this.none.hidden = found;
    this.lines.hidden = !found;
    setText(this.none, this.entries.length > 0 ? "No line is like that." : "Nothing yet.");
    this.show();
  }

  private matches(entry: Entry): boolean {
    const severe = entry.severity === "ERROR" || (this.level < 2 && entry.severity === "WARNING");
    return (this.level === 0 || severe) && entry.text.toLowerCase().includes(this.search.value.toLowerCase());
  }
}

function line(entry: Entry): HTMLElement {
  const who =
    entry.rank === undefined ? "" : entry.rank === -1 ? "node" : entry.rank === -2 ? "server" : `rank ${entry.rank}`;
  return h(
    "li",
    { class: entry.severity.toLowerCase() },
    h("time", {}, entry.time),
    h("span", { class: "level" }, entry.severity === "INFO" ? "" : entry.severity.toLowerCase()),
    h("span", { class: "rank muted" }, who),
    h("span", { class: "text" }, entry.text),
  );
}
