// What several parts of the page do alike: ask the server for something and ask again, and close on Escape.

import { useEffect, useState } from "preact/hooks";
import { call, sentence } from "./api";

export interface Asked<T> {
  /** What the server said last; null before it did. */
  answer: T | null;
  /** Why it has not answered; empty where it has. */
  problem: string;
}

/** Ask for what is at the path, and again whenever one of these values changes. What was said stays meanwhile. */
export function useAnswer<T>(path: string, again: readonly unknown[]): Asked<T> {
  const [told, setTold] = useState<Asked<T> & { of: string }>({ of: path, answer: null, problem: "" });
  useEffect(() => {
    const ending = new AbortController();
    call<T>(path, { signal: ending.signal })
      .then((answer) => setTold({ of: path, answer, problem: "" }))
      .catch((error: unknown) => {
        if (ending.signal.aborted) return;
        setTold((before) => ({ of: path, answer: before.of === path ? before.answer : null, problem: sentence(error) }));
      });
    return () => ending.abort();
  }, [path, ...again]);
  return told.of === path ? told : { answer: null, problem: "" };
}

/** Call this when Escape is pressed; a new one whenever one of these values changes. */
export function useEscape(close: () => void, again: readonly unknown[]): void {
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.key === "Escape") close();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, again);
}
