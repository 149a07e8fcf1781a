// SPDX-License-Identifier: Apache-2.0
// All jobs, live: what runs, what waits and why, what became of the rest.

import { api, type Column, idOf, isFinal, type Job } from "./api";
import type { Context, View } from "./app";
import { fill, h, setText, throttled } from "./dom";
import { follow } from "./events";
import { ago, duration, figure, percent } from "./format";
import { age, created, hasEnded, lastPart, phaseOf, stateOf, timeLeft, title, tokensPerSecond } from "./job_facts";
import { empty, labels, progress, sparkline, statePill } from "./parts";

const GROUPS: [string, (state: string) => boolean][] = [
  ["All", () => true],
  ["Running", (state) => ["RUNNING", "STARTING", "STOPPING"].includes(state)],
  ["Waiting", (state) => ["QUEUED", "CHECKING", "PAUSED"].includes(state)],
  ["Succeeded", (state) => state === "SUCCEEDED"],
  ["Failed", (state) => state === "FAILED"],
  ["Cancelled", (state) => state === "CANCELLED"],
];
const MOST_COMPARED = 8;

interface Row {
  element: HTMLTableRowElement;
  job: Job;
  spark: HTMLElement;
  update(job: Job): void;
}

export function jobList(context: Context): View {
  const rows = new Map<string, Row>();
  const chosen = new Set<string>();
  let group = 0;
  let next = "";
  let serverAhead = 0; // of this machine's clock, in milliseconds

  const search = h("input", {
    type: "search",
    placeholder: "Search by name, model, owner or label",
    "aria-label": "Search jobs",
    input: () => filter(),
  });
  const chips = GROUPS.map(([name], i) =>
    h(
      "button",
      { class: "chip", "aria-pressed": i === 0 ? "true" : "false", click: () => choose(i) },
      name,
      h("span", { class: "n" }),
    ),
  );
  const compare = h("a", { class: "button primary compare-chosen", hidden: true });
  const body = h("tbody");
  const none = h("div");
  const more = h("button", { hidden: true, click: () => void load(next) }, "Older jobs");
  const found = h("p", { class: "hidden", role: "status" });
  const head = ["", "Job", "State", "Progress", "Loss", "Pace", "Owner", "Created"].map((name) =>
    h("th", { scope: "col" }, name || h("span", { class: "hidden" }, "Compare")),
  );
  const table = h("table", { class: "jobs" }, h("thead", {}, h("tr", {}, ...head)), body);
  const element = h(
    "div",
    { class: "page" },
    h("h1", { class: "hidden" }, "Jobs"),
    h(
      "div",
      { class: "toolbar" },
      search,
      h("div", { class: "chips", role: "group", "aria-label": "Filter by state" }, ...chips),
    ),
    table,
    compare,
    none,
    h("div", { class: "center" }, more),
    found,
  );

  const choose = (i: number) => {
    group = i;
    chips.forEach((chip, at) => chip.setAttribute("aria-pressed", String(at === i)));
    filter();
  };

  const matches = (job: Job) => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const tags = Object.entries(job.spec.labels ?? {}).map(([key, value]) => `${key}=${value}`);
    const text = [idOf(job), title(job), job.spec.owner, job.spec.model?.uri, ...tags].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  };

  const filter = () => {
    let shown = 0;
    const counts = GROUPS.map(() => 0);
    for (const { element, job } of rows.values()) {
      const match = matches(job);
      if (match) GROUPS.forEach(([, has], i) => (counts[i]! += has(stateOf(job)) ? 1 : 0));
      element.hidden = !match || !GROUPS[group]![1](stateOf(job));
      if (!element.hidden) ++shown;
    }
    chips.forEach((chip, i) => setText(chip.querySelector(".n")!, String(counts[i])));
    table.hidden = shown === 0;
    fill(
      none,
      shown === 0 &&
        (rows.size === 0
          ? empty("No jobs yet", "Submit one: ", h("code", {}, "temper submit sft.yaml"))
          : empty("No job is like that", "Another search, or another state, may have one.")),
    );
    setText(found, `${shown} ${shown === 1 ? "job" : "jobs"}`);
  };
  const filterSoon = throttled(150, filter);

  const showChosen = () => {
    compare.hidden = chosen.size < 2;
    compare.setAttribute("href", `#/compare?jobs=${[...chosen].map(encodeURIComponent).join(",")}`);
    setText(compare, `Compare ${chosen.size}`);
    for (const row of rows.values()) {
      const box = row.element.querySelector("input")!;
      box.disabled = !box.checked && chosen.size >= MOST_COMPARED;
    }
  };

  const now = () => Date.now() + serverAhead;

  const makeRow = (first: Job): Row => {
    const id = idOf(first);
    const box = h("input", {
      type: "checkbox",
      "aria-label": `Compare ${id}`,
      change: () => {
        box.checked ? chosen.add(id) : chosen.delete(id);
        showChosen();
      },
    });
    const name = h("td", { class: "name" });
    const state = h("td", { class: "state" });
    const steps = h("td", { class: "steps" });
    const spark = h("div");
    const loss = h("span", { class: "number" });
    const speed = h("td", { class: "speed number" });
    const owner = h("td", { class: "owner" });
    const began = h("td", { class: "created number" });
    const row: Row = {
      element: h(
        "tr",
        {},
        h("td", { class: "check" }, box),
        name,
        state,
        steps,
        h("td", { class: "loss" }, spark, loss),
        speed,
        owner,
        began,
      ),
      job: first,
      spark,
      update: (job) => {
        row.job = job;
        const other = title(job) !== id;
        fill(
          name,
          h("a", { href: `#/jobs/${encodeURIComponent(id)}`, title: title(job) }, title(job)),
          h(
            "div",
            { class: "muted small" },
            [other ? id : "", lastPart(job.spec.model?.uri), job.spec.lora ? "LoRA" : ""].filter(Boolean).join(" · "),
          ),
          h("div", {}, ...labels(job)),
        );
        const place = job.queue_position ? `no. ${job.queue_position} in the queue` : "";
        const reason = hasEnded(job) && stateOf(job) !== "FAILED" ? "" : (job.reason ?? "");
        const why = [place, reason].filter(Boolean).join("; ") || phaseOf(job);
        fill(state, statePill(job), h("div", { class: "muted small why", title: why }, why));
        const left = timeLeft(job);
        fill(
          steps,
          progress(job),
          left !== undefined && h("div", { class: "muted small" }, `about ${duration(left)} left`),
        );
        setText(loss, job.latest_step ? figure(Number(job.latest_step.loss)) : "");
        const rate = stateOf(job) === "RUNNING" ? tokensPerSecond(job) : undefined;
        fill(
          speed,
          hasEnded(job) && job.start_time && h("span", { class: "muted" }, `took ${duration(age(job, now()))}`),
          rate !== undefined && h("div", {}, figure(rate), h("span", { class: "muted" }, " tok/s")),
          rate !== undefined &&
            job.latest_step?.mfu !== undefined &&
            h("div", { class: "muted small" }, `MFU ${percent(job.latest_step.mfu)}`),
        );
        fill(owner, job.spec.owner ?? "");
        owner.title = job.spec.owner ?? "";
        const when = job.create_time ?? "";
        fill(began, h("time", { datetime: when, title: when }, ago((now() - created(job)) / 1000)));
      },
    };
    seen.observe(row.element);
    return row;
  };

  // Curves of the rows that are on the screen, in one request.
  const wanted = new Set<string>();
  const fetchCurves = throttled(200, async () => {
    const ids = [...wanted].slice(0, 50);
    ids.forEach((id) => wanted.delete(id));
    if (ids.length === 0) return;
    try {
      for (const [id, line] of Object.entries(await api.sparklines(ids))) draw(id, line);
    } catch {
      // The list goes on without them.
    }
    if (wanted.size > 0) fetchCurves();
  });
  const curves = new Map<string, Column>();
  const draw = (id: string, line: Column) => {
    curves.set(id, line);
    const row = rows.get(id);
    const first = line.find((value) => value !== null);
    if (row) fill(row.spark, sparkline(line, `Loss from ${figure(first)} to ${figure(line.at(-1))}`));
  };
  const want = (job: Job) => {
    if (!job.latest_step) return;
    wanted.add(idOf(job));
    fetchCurves();
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      const row = rows.get((entry.target as HTMLElement).dataset["id"] ?? "");
      if (row) want(row.job);
    }
  });

  // The newest are the first.
  const insert = (row: Row) => {
    const isOlder = ({ job }: Row) => created(job) < created(row.job);
    const last = rows.get((body.lastElementChild as HTMLElement | null)?.dataset["id"] ?? "");
    // They come in their order for the most part.
    const next = last && isOlder(last) ? [...body.children].find((each) => isOlder(rowOf(each)!)) : undefined;
    body.insertBefore(row.element, next ?? null);
  };
  const rowOf = (element: Element) => rows.get((element as HTMLElement).dataset["id"] ?? "");

  // `heard`: it has changed at this moment, and was not read from a list.
  const take = (job: Job, heard: boolean) => {
    const id = idOf(job);
    let row = rows.get(id);
    // A list may have been made before what the stream has said since.
    if (row && Number(job.last_sequence ?? 0) < Number(row.job.last_sequence ?? 0)) return;
    const before = row?.job.latest_step?.step;
    if (!row) {
      row = makeRow(job);
      row.element.dataset["id"] = id;
      rows.set(id, row);
      insert(row);
    }
    row.update(job);
    // One that takes steps gets a new curve now and then: with each tenth of it, or when it ends.
    const step = Number(job.latest_step?.step ?? 0);
    const every = Math.max(1, Math.floor(Number(job.total_steps ?? 0) / 30));
    if (before !== undefined && Math.floor(step / every) !== Math.floor(Number(before) / every)) want(job);
    if (before === undefined && heard) want(job);
  };

  let asked = 0; // how often, for the newest page
  const heardSince = new Set<string>(); // then
  const load = async (page = "") => {
    try {
      const turn = page === "" ? ++asked : asked;
      if (page === "") heardSince.clear();
      const answer = await api.jobs(page);
      if (turn !== asked) return; // a newer one is on its way
      serverAhead = Date.parse(answer.time) - Date.now();
      const jobs = answer.jobs ?? [];
      if (page === "") {
        const there = new Set([...jobs.map(idOf), ...heardSince]);
        const oldest = jobs.at(-1);
        for (const [id, row] of rows) {
          if (there.has(id) || (next !== "" && oldest && created(row.job) < created(oldest))) continue;
          row.element.remove(); // it was deleted
          rows.delete(id);
        }
      }
      for (const job of jobs) take(job, false);
      next = answer.next_page_token ?? "";
      more.hidden = next === "";
      started = true;
      filter();
    } catch (error) {
      if (!started || isFinal(error)) context.fail(error); // otherwise the stream comes back, and then this does
    }
  };
  let started = false;
  const loadSoon = throttled(1000, load);

  const stop = follow("/api/v1/stream", "", {
    live: (up) => {
      context.live(up);
      // What happened before the stream began. Without one there is a list all the same.
      if (up || !started) void load();
    },
    fail: context.fail,
    message: (type, data) => {
      if (type === "reload") return void load();
      if (type !== "message") return;
      const job = JSON.parse(data) as Job;
      const before = rows.get(idOf(job))?.job;
      // Those behind it are told nothing when one leaves the queue.
      if (before?.queue_position && !job.queue_position) loadSoon();
      heardSince.add(idOf(job));
      take(job, true);
      filterSoon();
    },
  });
  const tick = setInterval(() => {
    for (const row of rows.values()) {
      const time = row.element.querySelector("time");
      if (time) setText(time, ago((now() - created(row.job)) / 1000));
    }
  }, 10_000);

  return {
    title: "Jobs · temper",
    element,
    close: () => {
      stop();
      clearInterval(tick);
      seen.disconnect();
    },
  };
}
