// SPDX-License-Identifier: Apache-2.0
// What a job left, what it learns from, and what was asked of it.

import { type Artifact, api, idOf, type Job, type PreflightReport, type Session } from "./api";
import { type Child, fill, h } from "./dom";
import { bytes, count, day, duration, figure, percent } from "./format";
import { lastPart, number, stateOf } from "./job_facts";
import { download, empty, problem } from "./parts";
import { toYaml } from "./yaml";

// What an export was proved by (docs/VERIFY.md), as its event has it.
export type Proof = Record<
  string,
  | {
      passed?: boolean;
      skipped?: string;
      reasons?: string[];
      tensors?: number;
      max_token_kl?: number;
      max_score_difference?: number;
    }
  | undefined
>;

export async function resultsPanel(
  panel: HTMLElement,
  job: Job,
  proof: Proof | undefined,
  session: Session,
): Promise<void> {
  const id = idOf(job);
  const mayTake =
    !session.tokens || session.role === "admin" || (session.role === "submitter" && job.spec.owner === session.name);
  try {
    const checkpoints = (await api.checkpoints(id)).checkpoints ?? [];
    const exported = job.export_uri && mayTake ? ((await api.artifacts(id)).artifacts ?? []) : [];
    const open = new Set([...panel.querySelectorAll("details[open]")].map((each) => each.id));
    fill(
      panel,
      h("section", { class: "card" }, h("h2", {}, "Export"), ...exportPart(job, proof, exported, mayTake)),
      h(
        "section",
        { class: "card" },
        h("h2", {}, "Checkpoints"),
        checkpoints.length === 0 &&
          empty("No checkpoints yet", "`checkpoints` in the job file says when there is one."),
        ...checkpoints.map((checkpoint) => {
          const step = checkpoint.step ?? "0";
          const files = h("div");
          const details = h(
            "details",
            {
              id: `checkpoint-${step}`,
              open: open.has(`checkpoint-${step}`),
              toggle: async () => {
                if (!details.open || files.childElementCount > 0) return;
                try {
                  fill(files, fileList(id, (await api.artifacts(id, step)).artifacts ?? [], step));
                } catch (error) {
                  fill(files, problem(String((error as Error).message)));
                }
              },
            },
            h(
              "summary",
              {},
              h("b", {}, `Step ${count(Number(step))}`),
              checkpoint.best && h("span", { class: "pill succeeded" }, "★ best"),
              h(
                "span",
                { class: "muted" },
                ` ${bytes(number(checkpoint.size_bytes))} · ${checkpoint.files ?? 0} files · ${day(new Date(checkpoint.commit_time ?? 0))}`,
              ),
            ),
            h("p", { class: "muted small" }, h("code", {}, checkpoint.uri ?? "")),
            mayTake ? files : h("p", {}, "Only its owner and admins may take it."),
          );
          return details;
        }),
      ),
    );
  } catch (error) {
    fill(panel, problem((error as Error).message));
  }
}

function verdicts(proof: Proof): HTMLElement {
  const { tensors, native_reload: reload, transformers } = proof;
  const found: [boolean | undefined, string][] = [];
  if (tensors)
    found.push([
      tensors.passed,
      `${count(tensors.tensors)} tensors equal what was trained, rounded to the model's dtype, bit for bit`,
    ]);
  if (reload)
    found.push([
      reload.passed,
      `opened anew, the export computes what was trained (${
        reload.max_score_difference === undefined
          ? `largest KL of a token ${figure(reload.max_token_kl)}`
          : `largest relative difference of a score ${figure(reload.max_score_difference)}`
      })`,
    ]);
  if (transformers?.skipped) found.push([undefined, `not compared with transformers: ${transformers.skipped}`]);
  else if (transformers)
    found.push([
      transformers.passed,
      transformers.passed
        ? "transformers computes the same from it"
        : `transformers computes something else: ${(transformers.reasons ?? []).join("; ")}`,
    ]);
  const one = ([passed, text]: (typeof found)[number]) =>
    h(
      "li",
      { class: passed ? "info" : passed === undefined ? "warning" : "error" },
      h("b", {}, passed ? "✓ proved" : passed === undefined ? "▲ open" : "✕ differs"),
      " ",
      text,
    );
  return h("ul", { class: "checks" }, ...found.map(one));
}

function exportPart(job: Job, proof: Proof | undefined, files: Artifact[], mayTake: boolean): Child[] {
  if (job.verdict) {
    return [
      h(
        "p",
        {},
        job.verdict.passed
          ? "✓ The native model computes what transformers' does."
          : "✕ It does not compute what transformers' does.",
      ),
      ...(job.verdict.reasons ?? []).map((reason) => h("p", { class: "warning" }, reason)),
      h("pre", {}, job.verdict.table ?? ""),
    ];
  }
  if (!job.export_uri) {
    return [
      empty(
        stateOf(job) === "RUNNING" ? "It is written when training ends" : "There is none",
        "Each tensor is proved before it is published.",
      ),
    ];
  }
  return [
    h("p", { class: "muted small" }, h("code", {}, job.export_uri)),
    proof && verdicts(proof),
    h(
      "p",
      {},
      "All of it, with its digests compared: ",
      h("code", {}, `temper download ${idOf(job)} --to my-finetune`),
    ),
    mayTake ? fileList(idOf(job), files, "") : h("p", {}, "Only its owner and admins may take it."),
  ];
}

function fileList(id: string, files: Artifact[], checkpoint: string): HTMLElement {
  const row = (file: Artifact) =>
    h(
      "tr",
      {},
      h("td", {}, h("code", {}, file.path)),
      h("td", { class: "number" }, bytes(number(file.size_bytes))),
      h("td", { class: "digest", title: file.sha256 }, h("code", {}, (file.sha256 ?? "").slice(0, 12))),
      h(
        "td",
        {},
        h(
          "button",
          {
            "aria-label": `Download ${file.path}`,
            click: async (event: Event) => {
              const cell = (event.currentTarget as HTMLElement).parentElement!;
              try {
                const { url } = await api.ticket(id, file.path, checkpoint);
                const name = `${id}-${lastPart(file.path)}`;
                download(url + encodeURIComponent(name), name);
              } catch (error) {
                cell.append(problem((error as Error).message));
              }
            },
          },
          "Download",
        ),
      ),
    );
  const head = ["File", "Size", "SHA-256", ""].map((name) =>
    h("th", { scope: "col" }, name || h("span", { class: "hidden" }, "Download")),
  );
  return h(
    "div",
    { class: "scroll", tabindex: 0 },
    h("table", { class: "files" }, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...files.map(row))),
  );
}

export function dataPanel(panel: HTMLElement, job: Job): void {
  const report = job.preflight;
  if (!report)
    return fill(
      panel,
      h(
        "section",
        { class: "card" },
        empty(
          "Nobody has looked at the data",
          "A preflight shows what is learned of it: it was left out, or is not done yet.",
        ),
      ),
    );
  fill(
    panel,
    h(
      "section",
      { class: "card" },
      h("h2", {}, "What is learned"),
      h("p", { class: "muted small" }, h("span", { class: "scored" }, "This is learned"), ", the rest is only read."),
      ...samples(report),
    ),
    h(
      "section",
      { class: "card" },
      h("h2", {}, "What was found"),
      h("ul", { class: "checks" }, ...(report.checks ?? []).map(check)),
      facts(report),
    ),
  );
}

function samples(report: PreflightReport): HTMLElement[] {
  let number = 0;
  return (report.samples ?? []).map((each) => {
    if (each.part !== "rejected") ++number;
    return sample(each, each.part ? `Sample ${number}, ${each.part}` : `Sample ${number}`);
  });
}

function sample(each: NonNullable<PreflightReport["samples"]>[number], name: string): HTMLElement {
  const pieces = (each.pieces ?? []).map((piece) =>
    piece.scored ? h("mark", { class: "scored" }, piece.text ?? "") : (piece.text ?? ""),
  );
  return h(
    "figure",
    { class: "sample" },
    h(
      "figcaption",
      { class: "muted small" },
      `${name}: ${count(Number(each.tokens ?? 0))} tokens, ${count(Number(each.scored_tokens ?? 0))} learned`,
    ),
    h("pre", { tabindex: 0 }, ...pieces),
  );
}

function check(each: { severity?: string; text?: string }): HTMLElement {
  const severity = (each.severity ?? "").replace("LOG_SEVERITY_", "").toLowerCase();
  const sign = { warning: "▲ warning", error: "✕ error" }[severity] ?? "✓ ok";
  return h("li", { class: severity }, h("b", {}, sign), " ", each.text ?? "");
}

function facts(report: PreflightReport): HTMLElement {
  const data = report.data ?? {};
  const memory = report.memory ?? {};
  const rows: [string, string][] = [
    ["Samples", `${count(number(data["samples_kept"]))} of ${count(number(data["samples_read"]))}`],
    [
      "Tokens",
      `${count(number(data["tokens"]))}, ${percent(number(data["scored_tokens"]) / number(data["tokens"]), 1)} of them learned`,
    ],
    [
      "Steps",
      `${count(number(report.total_steps))}${report.estimated_seconds ? `, about ${duration(report.estimated_seconds)}` : ""}`,
    ],
    ["Memory", `about ${bytes(number(memory["total"]))} of ${bytes(number(memory["available"]))}`],
    ["Backend", `${report.backend ?? ""}: ${report.backend_reason ?? ""}`],
  ];
  return h("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

export function filePanel(panel: HTMLElement, job: Job): void {
  const text = toYaml(job.spec);
  const copy = h(
    "button",
    {
      click: async () => {
        await navigator.clipboard.writeText(text);
        fill(copy, "Copied");
      },
    },
    "Copy",
  );
  fill(
    panel,
    h(
      "section",
      { class: "card" },
      h("div", { class: "row" }, h("h2", {}, "Job file"), copy),
      h("p", { class: "muted small" }, "With the defaults that the server has filled in."),
      h("pre", { class: "file", tabindex: 0 }, text),
    ),
  );
}
