// What every part of the page is written with: tagged templates instead of JSX, so that nothing is compiled at run
// time and text is only ever put into text nodes.

import { effect, type ReadonlySignal } from "@preact/signals-core";
import { type ComponentChildren, h } from "preact";
import { useEffect, useState } from "preact/hooks";
import htm from "htm";

export const html = htm.bind(h) as (
  strings: TemplateStringsArray,
  ...values: unknown[]
) => ComponentChildren;

/** Return the signal's value, and have the component drawn anew when that changes. */
export function use<T>(signal: ReadonlySignal<T>): T {
  const [value, set] = useState<{ is: T }>({ is: signal.peek() });
  useEffect(
    () =>
      effect(() => {
        const now = signal.value;
        set((before) => (Object.is(before.is, now) ? before : { is: now }));
      }),
    [signal],
  );
  return value.is;
}

/** How long ago, in words that stay true for a while. */
export function ago(at: string | null | undefined, now: number = Date.now()): string {
  if (!at) return "never";
  const seconds = Math.max(0, (now - Date.parse(at)) / 1000);
  if (!Number.isFinite(seconds)) return at;
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86_400)} days ago`;
}

/** A time as the reader's clock shows it. */
export function clock(at: string): string {
  const when = new Date(at);
  if (Number.isNaN(when.getTime())) return at;
  const two = (value: number) => String(value).padStart(2, "0");
  const time = `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
  const isToday = when.toDateString() === new Date().toDateString();
  return isToday ? time : `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${time}`;
}

/** How long it is until then, in words: "4:05", or "1 h 5 min"; empty once it is over. */
export function left(until: string, now: number): string {
  const seconds = Math.ceil((Date.parse(until) - now) / 1000);
  if (!(seconds > 0)) return "";
  if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

/** A length of time as a person says it. */
export function span(seconds: number): string {
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** Whether a device has said in full what differs, and not in a line for each side. */
export function isDifference(text: string): boolean {
  return text.startsWith("--- ");
}

/** What differs, line by line, as `diff -u` writes it. */
export function Difference({ text }: { text: string }) {
  return html`<pre class="diff" tabindex="0">${text.trimEnd().split("\n").map(
    (line) => html`<span class=${line.startsWith("+") ? "more" : line.startsWith("-") ? "less" : ""}>${`${line}\n`}</span>`,
  )}</pre>`;
}
