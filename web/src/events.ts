// SPDX-License-Identifier: Apache-2.0
// Server-sent events, by fetch: an EventSource can't send a token.

import { isFinal, request } from "./api";

export interface Handlers {
  message(type: string, data: string): void;
  // Whether the line is up. Called when that changes.
  live(up: boolean): void;
  // It does not come back by itself: a token is gone, or a job.
  fail(error: unknown): void;
}

interface Message {
  type: string;
  data: string[];
}

const LONGEST_PAUSE = 10_000;

// Follows `path` until the returned function is called, or an event `end` has come. Comes back by itself after the last
// event that had an id, when the line breaks or the server is restarted.
export function follow(path: string, lastId: string, handlers: Handlers): () => void {
  const stop = new AbortController();
  let id = lastId;
  let pause = 500;
  let ended = false;
  let up: boolean | undefined;

  const say = (now: boolean) => {
    if (up !== now && !stop.signal.aborted) handlers.live((up = now));
  };

  const take = (message: Message) => {
    if (message.data.length === 0) return;
    if (message.type === "end") ended = true;
    handlers.message(message.type, message.data.join("\n"));
  };

  const read = async (body: ReadableStream<Uint8Array>) => {
    const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
    let rest = "";
    let message: Message = { type: "message", data: [] };
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
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

  const run = async () => {
    while (!ended && !stop.signal.aborted) {
      try {
        const headers: Record<string, string> = id ? { "Last-Event-ID": id } : {};
        const response = await request(path, { signal: stop.signal, headers });
        pause = 500;
        say(true);
        if (response.body) await read(response.body);
      } catch (error) {
        if (isFinal(error)) {
          ended = true;
          handlers.fail(error);
        }
      }
      if (ended) break;
      say(false);
      await new Promise((resolve) => setTimeout(resolve, pause));
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
  };
  void run();
  return () => stop.abort();
}
