// SPDX-License-Identifier: Apache-2.0
// Server-sent events, by fetch: an EventSource can't send a token.

import { idOf, isFinal, type JobEvent, request } from "./api";

interface Line {
  // Whether the line is up. Called when that changes, and whenever a page is seen again that was hidden.
  live(up: boolean): void;
  // It does not come back by itself: a token is gone, or a job.
  fail(error: unknown): void;
}

export interface Handlers extends Line {
  message(type: string, data: string): void;
}

export interface JobHandlers extends Line {
  // `job` is its name, "jobs/a".
  event(job: string, event: JobEvent): void;
  // All of them have ended.
  end?(): void;
}

interface Message {
  type: string;
  data: string[];
}

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;
// The server says something every ten seconds. A line that is silent for longer is dead, though nobody may have said so.
const LONGEST_SILENCE = 25_000;

// Follows `path` until the returned function is called, or an event `end` has come. Comes back by itself after the last
// event that had an id, when the line breaks or the server is restarted. A page that nobody sees has no line: a browser
// has but six to a server, for all its tabs.
export function follow(path: string, lastId: string, handlers: Handlers): () => void {
  let line = new AbortController();
  let wake = () => {};
  let id = lastId;
  let pause = FIRST_PAUSE;
  let over = false;
  let unseen = false; // since the line was opened
  let up: boolean | undefined;

  const say = (now: boolean) => {
    if (up !== now && !over) handlers.live((up = now));
  };

  const take = (message: Message) => {
    if (message.data.length === 0 || over) return;
    if (message.type === "end") over = true;
    handlers.message(message.type, message.data.join("\n"));
  };

  const read = async (body: ReadableStream<Uint8Array>, heard: () => void) => {
    const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
    let rest = "";
    let message: Message = { type: "message", data: [] };
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      const lines = (rest + value).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line === "") {
          take(message);
          message = { type: "message", data: [] };
        } else if (line.startsWith("data: ")) message.data.push(line.slice(6));
        else if (line.startsWith("event: ")) message.type = line.slice(7);
        else if (line.startsWith("id: ")) id = line.slice(4);
      }
    }
  };

  const connect = async () => {
    line = new AbortController();
    const { signal } = line;
    let silence = 0;
    const heard = () => {
      clearTimeout(silence);
      silence = setTimeout(() => line.abort(), LONGEST_SILENCE);
    };
    try {
      heard();
      const headers: Record<string, string> = id ? { "Last-Event-ID": id } : {};
      const response = await request(path, { signal, headers });
      pause = FIRST_PAUSE;
      say(true);
      if (response.body) await read(response.body, heard);
    } catch (error) {
      if (isFinal(error) && !over) {
        over = true;
        handlers.fail(error);
      }
    } finally {
      clearTimeout(silence);
    }
  };

  // Until `wake` is called, or so many milliseconds are over.
  const sleep = (time?: number) =>
    new Promise<void>((resolve) => {
      wake = resolve;
      if (time !== undefined) setTimeout(resolve, time);
    });

  const run = async () => {
    while (!over) {
      if (document.hidden) {
        await sleep();
        continue;
      }
      unseen = false;
      await connect();
      if (over || unseen) continue;
      say(false);
      await sleep(pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
    document.removeEventListener("visibilitychange", look);
  };
  const look = () => {
    if (!document.hidden) return wake();
    unseen = true;
    up = undefined;
    line.abort();
  };
  document.addEventListener("visibilitychange", look);
  void run();
  return () => {
    over = true;
    line.abort();
    wake();
  };
}

// The events of several jobs, each after the one that is known of it.
export function followJobs(jobs: { name: string; after: number }[], handlers: JobHandlers): () => void {
  const ids = jobs.map((job) => encodeURIComponent(idOf(job)));
  return follow(`/api/v1/events?jobs=${ids.join(",")}`, jobs.map(({ after }) => after).join(","), {
    live: handlers.live,
    fail: handlers.fail,
    message: (type, data) => {
      if (type === "reload") location.reload(); // its database is an older one than what is shown
      if (type === "end") handlers.end?.();
      if (type !== "message") return;
      const { job, event } = JSON.parse(data) as { job: string; event: JobEvent };
      handlers.event(job, event);
    },
  });
}
