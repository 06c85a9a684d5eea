// What is being looked at: the search, the lens, grid or table, and the place that the address names.

import { computed, effect, signal, type Signal } from "@preact/signals-core";
import { fleet, news } from "./fleet";
import type { Lens } from "./marks";

export const LENSES: readonly Lens[] = ["overall", "device", "update", "workloads"];

/** What somebody has chosen here before, kept by the browser. */
function kept<T extends string>(name: string, otherwise: T): Signal<T> {
  const made: Signal<T> = signal((localStorage.getItem(`harmony.${name}`) as T | null) ?? otherwise);
  effect(() => localStorage.setItem(`harmony.${name}`, made.value));
  return made;
}

export const search = signal("");
export const lens = kept<Lens>("lens", "overall");
export const shape = kept<"auto" | "grid" | "table">("shape", "auto");
export const theme = kept<"auto" | "light" | "dark">("theme", "auto");
/** The marks that are shown; empty for all. */
export const chosen = signal<ReadonlySet<number>>(new Set());

export interface Route {
  /** What the page is about. */
  of: "devices" | "rollouts";
  device: string | null;
  logs: string | null;
  /** The class whose rollout is looked at. */
  rollout: string | null;
}

function read(): Route {
  const [, kind, name, logs, score] = location.hash.split("/").map(decode);
  const nothing = { of: "devices" as const, device: null, logs: null, rollout: null };
  if (kind === "rollouts") return { ...nothing, of: "rollouts", rollout: name || null };
  if (kind !== "device" || !name) return nothing;
  return { ...nothing, device: name, logs: logs === "logs" && score ? score : null };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = signal<Route>(read());
addEventListener("hashchange", () => (route.value = read()));

export function go(device: string | null, logs: string | null = null): void {
  const path = device === null ? "/" : `/device/${encodeURIComponent(device)}`;
  location.hash = logs === null ? path : `${path}/logs/${encodeURIComponent(logs)}`;
}

/** The places that match search and choice, in the order of ids; and where each stands among them. */
export interface Shown {
  places: Int32Array;
  /** For each place its number among the shown, or -1. */
  number: Int32Array;
}

function find(): Shown {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const number = new Int32Array(fleet.size).fill(-1);
  const found = new Int32Array(fleet.size);
  let count = 0;
  for (let place = 0; place < fleet.size; place++) {
    if (!isShown(place, words)) continue;
    number[place] = count;
    found[count++] = place;
  }
  return { places: found.slice(0, count), number };
}

function isShown(place: number, words: readonly string[]): boolean {
  const marks = chosen.peek();
  if (marks.size && !marks.has(fleet.mark(place, lens.peek()))) return false;
  if (!words.length) return true;
  const text = fleet.text(place);
  return words.every((each) => text.includes(each));
}

export const shown = signal<Shown>({ places: new Int32Array(), number: new Int32Array() });
/** What is to be drawn anew where the shown are the same as before: places, or null for all. */
export const redraw = signal<{ places: number[] | null }>({ places: null });

let asked: readonly unknown[] = [];
effect(() => {
  const { changed } = news.value;
  const asks = [search.value, chosen.value, lens.value];
  const isSameQuestion = asks.every((each, at) => each === asked[at]);
  asked = asks;
  if (changed !== null && isSameQuestion) {
    const words = search.peek().toLowerCase().split(/\s+/).filter(Boolean);
    const { number } = shown.peek();
    if (changed.every((place) => isShown(place, words) === (number[place] ?? -1) >= 0)) {
      redraw.value = { places: changed };
      return;
    }
  }
  shown.value = find();
  redraw.value = { places: null };
});

/** How many of the fleet have which mark, as the lens shows it. */
export const counts = computed(() => {
  void news.value;
  return fleet.count(lens.value);
});
