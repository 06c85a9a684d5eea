// The fleet in the browser: columns as the server sends them, kept up by changes. Ten thousand devices are a few
// arrays, not ten thousand objects.

import { computed, signal } from "@preact/signals-core";
import type { Axis, Changes, FleetColumns } from "./api";
import { type Lens, MARKS, markOf } from "./marks";

export const AXES: readonly Axis[] = ["device", "update", "workloads"];
const GIVEN = 256;

export interface Told {
  /** Places whose devices look different now; null when everything may. */
  changed: number[] | null;
}

export class Fleet {
  name = "";
  tag = "";
  ids: string[] = [];
  reasons: string[] = [];
  versions: string[] = [];
  labels: Record<string, string>[] = [];
  private codes: Record<Axis, Uint16Array> = none();
  private names: Record<Axis, Map<number, string>> = { device: new Map(), update: new Map(), workloads: new Map() };
  private marks: Record<Axis, Uint8Array> = { device: marksOf({}), update: marksOf({}), workloads: marksOf({}) };
  private places = new Map<string, number>();
  private texts: (string | undefined)[] = [];

  get size(): number {
    return this.ids.length;
  }

  /** Take in the whole fleet. */
  load(columns: FleetColumns): void {
    this.name = columns.fleet;
    this.tag = columns.tag;
    for (const axis of AXES) {
      const names = columns.states[axis];
      this.names[axis] = new Map(Object.entries(names).map(([name, code]) => [code.charCodeAt(0), name]));
      this.marks[axis] = marksOf(names);
    }
    this.ids = columns.ids;
    this.reasons = columns.reasons;
    this.versions = columns.versions;
    const labels = Object.entries(columns.labels);
    this.labels = columns.ids.map((_, place) => {
      const own: Record<string, string> = {};
      for (const [name, values] of labels) {
        const value = values[place];
        if (value !== null && value !== undefined) own[name] = value;
      }
      return own;
    });
    for (const axis of AXES) this.codes[axis] = Uint16Array.from(columns[axis], (each) => each.charCodeAt(0));
    this.index();
  }

  /** Take in what has changed; *tag* is what is known then. */
  apply(changes: Changes, tag: string): Told {
    this.tag = tag;
    const isNew = changes.rows.some(([id]) => !this.places.has(id));
    if (isNew || changes.gone.length) {
      this.rebuild(changes);
      return { changed: null };
    }
    const changed = changes.rows.map(([id, states, reason, version, labels]) => {
      const place = this.places.get(id) as number;
      AXES.forEach((axis, at) => (this.codes[axis][place] = states.charCodeAt(at)));
      this.reasons[place] = reason;
      this.versions[place] = version;
      this.labels[place] = labels;
      this.texts[place] = undefined;
      return place;
    });
    return { changed };
  }

  placeOf(id: string): number | undefined {
    return this.places.get(id);
  }

  /** The state of one axis in words. */
  state(place: number, axis: Axis): string {
    return this.names[axis].get(this.codes[axis][place] ?? 0) ?? "Unknown";
  }

  /** The mark of a device as *lens* shows it: of one axis, or the worst of all. */
  mark(place: number, lens: Lens): number {
    if (lens !== "overall") return this.marks[lens][this.codes[lens][place] ?? 0] ?? 0;
    const device = this.mark(place, "device");
    const update = this.mark(place, "update");
    const workloads = this.mark(place, "workloads");
    return Math.min(device, update, workloads);
  }

  /** How many devices have which mark. */
  count(lens: Lens): number[] {
    const counts = MARKS.map(() => 0);
    for (let place = 0; place < this.size; place++) {
      const mark = this.mark(place, lens);
      counts[mark] = (counts[mark] ?? 0) + 1;
    }
    return counts;
  }

  /** What is searched in, the same as on the server (board.py). */
  text(place: number): string {
    const known = this.texts[place];
    if (known !== undefined) return known;
    const labels = Object.entries(this.labels[place] ?? {}).map(([name, value]) => `${name}=${value}`);
    const states = AXES.map((axis) => this.state(place, axis));
    const made = [this.ids[place], ...states, this.versions[place], this.reasons[place], ...labels].join(" ").toLowerCase();
    this.texts[place] = made;
    return made;
  }

  private rebuild(changes: Changes): void {
    const gone = new Set(changes.gone);
    const rows = new Map<string, [string, string, string, Record<string, string>]>();
    this.ids.forEach((id, place) => {
      if (gone.has(id)) return;
      const states = AXES.map((axis) => String.fromCharCode(this.codes[axis][place] ?? 0)).join("");
      rows.set(id, [states, this.reasons[place] ?? "", this.versions[place] ?? "", this.labels[place] ?? {}]);
    });
    for (const [id, ...rest] of changes.rows) rows.set(id, rest);
    const ids = [...rows.keys()].sort();
    const sorted = ids.map((id) => rows.get(id) as [string, string, string, Record<string, string>]);
    this.ids = ids;
    this.reasons = sorted.map((each) => each[1]);
    this.versions = sorted.map((each) => each[2]);
    this.labels = sorted.map((each) => each[3]);
    AXES.forEach((axis, at) => (this.codes[axis] = Uint16Array.from(sorted, (each) => each[0].charCodeAt(at))));
    this.index();
  }

  private index(): void {
    this.places = new Map(this.ids.map((id, place) => [id, place]));
    this.texts = new Array<string | undefined>(this.size);
  }
}

function none(): Record<Axis, Uint16Array> {
  return { device: new Uint16Array(), update: new Uint16Array(), workloads: new Uint16Array() };
}

function marksOf(names: Record<string, string>): Uint8Array {
  const marks = new Uint8Array(GIVEN).fill(markOf("Unknown"));
  for (const [name, code] of Object.entries(names)) marks[code.charCodeAt(0)] = markOf(name);
  return marks;
}

/** The one fleet of this page; who shows it listens to `news`. */
export const fleet = new Fleet();
export const news = signal<Told>({ changed: null });
/** What nearly no news changes: who shows these is not made anew by each. */
export const fleetName = computed(() => (void news.value, fleet.name));
export const fleetSize = computed(() => (void news.value, fleet.size));
