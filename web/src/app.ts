// SPDX-License-Identifier: Apache-2.0
// The page's frame: where one is, whether it is live, who one is.

import "uplot/dist/uPlot.min.css";
import "./style.css";

import { ApiError, api, type Session, setToken, token } from "./api";
import { comparePage } from "./compare";
import { fill, h, setText } from "./dom";
import { jobList } from "./job_list";
import { jobPage } from "./job_page";
import { problem } from "./parts";
import { startTheme, switchTheme, theme } from "./theme";

// A view fills `main` and returns what ends it.
export interface View {
  title: string;
  element: HTMLElement;
  close(): void;
  // Whether another address is a part of it, which it then shows.
  follow?(hash: string): boolean;
}

export interface Context {
  session: Session;
  live(up: boolean): void;
  fail(error: unknown): void;
}

const main = document.getElementById("main")!;
const top = document.getElementById("top")!;
const status = h("span", { class: "status", role: "status" });
const account = h("span", { class: "account" });
const themeButton = h("button", { class: "quiet", click: () => showTheme(switchTheme()) });

let view: View | undefined;
let context: Context | undefined; // the view's

function showTheme(now: string): void {
  const signs: Record<string, string> = { auto: "◐", light: "☀", dark: "☾" };
  fill(
    themeButton,
    h("span", { "aria-hidden": "true" }, signs[now]),
    h("span", { class: "hidden" }, `Colours: ${now}`),
  );
  themeButton.title = `Colours: ${now}`;
}

function showLive(up: boolean): void {
  status.className = up ? "status up" : "status down";
  setText(status, up ? "Live" : "Reconnecting…");
}

// What the view still asks for may be refused, which must not take the place of what comes next.
function leave(): void {
  view?.close();
  view = undefined;
  context = undefined;
}

function signOut(): void {
  leave();
  setToken("");
  void start();
}

function fail(error: unknown): void {
  if (error instanceof ApiError && error.status === 401) return signIn(token() ? error.message : "");
  const text = error instanceof Error ? error.message : String(error);
  main.replaceChildren(
    problem(text),
    h(
      "p",
      { class: "pad" },
      h("a", { href: "#/" }, "All jobs"),
      " · ",
      h("button", { click: () => void start() }, "Try again"),
    ),
  );
}

function signIn(why: string): void {
  leave();
  status.className = "status";
  setText(status, "");
  fill(account);
  const field = h("input", { type: "password", id: "token", autocomplete: "off", spellcheck: "false", required: true });
  const enter = (event: Event) => {
    event.preventDefault();
    setToken(field.value.trim());
    void start();
  };
  document.title = "Sign in · temper";
  fill(
    main,
    h(
      "form",
      { class: "card signin", submit: enter },
      h("h1", {}, "Sign in"),
      h("p", {}, "This server asks for a token. Whoever runs it makes one for you:"),
      h("pre", {}, "temper token create NAME --role reader"),
      why && problem(why),
      h("label", { for: "token" }, "Token"),
      field,
      h("button", { class: "primary" }, "Sign in"),
      h("p", { class: "muted small" }, "It is kept in this tab until you close it."),
    ),
  );
  field.focus();
}

function route(context: Context): View {
  const [path = "", query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [place, id = "", tab = ""] = path.split("/").map(decodeURIComponent);
  if (place === "jobs" && id) return jobPage(context, id, tab);
  if (place === "compare") {
    const jobs = new URLSearchParams(query).get("jobs") ?? "";
    return comparePage(context, jobs.split(",").filter(Boolean).slice(0, 8));
  }
  return jobList(context);
}

async function start(): Promise<void> {
  try {
    const session = await api.session();
    fill(account, session.tokens && h("span", {}, session.name, h("span", { class: "muted" }, ` · ${session.role}`)));
    if (session.tokens) account.append(h("button", { class: "quiet", click: signOut }, "Sign out"));
    leave();
    const mine: Context = {
      session,
      live: showLive,
      fail: (error) => {
        if (context === mine) fail(error);
      },
    };
    context = mine;
    const show = () => {
      if (view?.follow?.(location.hash)) return;
      view?.close();
      view = route(mine);
      document.title = view.title;
      fill(main, view.element);
      scrollTo(0, 0);
    };
    window.onhashchange = show;
    show();
  } catch (error) {
    fail(error);
  }
}

addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLTextAreaElement;
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey) return;
  const search = document.querySelector<HTMLInputElement>("input[type=search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
});

startTheme();
showTheme(theme());
const logo = h("a", { class: "logo", href: "#/" }, h("span", { class: "mark", "aria-hidden": "true" }), "temper");
top.append(logo, h("span", { class: "space" }), status, account, themeButton);
void start();
