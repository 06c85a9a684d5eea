// How a state looks: a colour and a shape, so that neither is needed to tell it from the others. The worst of a
// device's three axes is its mark.

import type { Axis } from "./api";

export type Lens = "overall" | Axis;

export interface Mark {
  name: string;
  /** The custom property in app.css that has its colour. */
  colour: string;
  draw: (pen: CanvasRenderingContext2D, size: number) => void;
}

type Pen = CanvasRenderingContext2D;

function disc(pen: Pen, size: number, radius: number): void {
  pen.beginPath();
  pen.arc(size / 2, size / 2, size * radius, 0, 2 * Math.PI);
  pen.fill();
}

function ring(pen: Pen, size: number, radius: number): void {
  pen.lineWidth = size * 0.15;
  pen.beginPath();
  pen.arc(size / 2, size / 2, size * radius, 0, 2 * Math.PI);
  pen.stroke();
}

function polygon(pen: Pen, size: number, points: [number, number][]): void {
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x * size, y * size);
  pen.closePath();
  pen.fill();
}

/** In the order of how much they matter: the first that holds is a device's mark. */
export const MARKS: readonly Mark[] = [
  {
    name: "Unverified",
    colour: "--unverified",
    draw: (pen, size) => polygon(pen, size, [[0.5, 0.06], [0.94, 0.5], [0.5, 0.94], [0.06, 0.5]]),
  },
  {
    name: "Error",
    colour: "--bad",
    draw: (pen, size) => pen.fillRect(size * 0.12, size * 0.12, size * 0.76, size * 0.76),
  },
  {
    name: "Refused",
    colour: "--bad",
    draw: (pen, size) => {
      pen.lineWidth = size * 0.2;
      pen.beginPath();
      pen.moveTo(size * 0.2, size * 0.2);
      pen.lineTo(size * 0.8, size * 0.8);
      pen.moveTo(size * 0.8, size * 0.2);
      pen.lineTo(size * 0.2, size * 0.8);
      pen.stroke();
    },
  },
  {
    name: "Silent",
    colour: "--warn",
    draw: (pen, size) => {
      pen.lineWidth = size * 0.15;
      pen.strokeRect(size * 0.2, size * 0.2, size * 0.6, size * 0.6);
    },
  },
  {
    name: "Offline",
    colour: "--away",
    draw: (pen, size) => pen.fillRect(size * 0.12, size * 0.39, size * 0.76, size * 0.22),
  },
  {
    name: "Never",
    colour: "--away",
    draw: (pen, size) => disc(pen, size, 0.14),
  },
  {
    name: "Degraded",
    colour: "--warn",
    draw: (pen, size) => polygon(pen, size, [[0.5, 0.1], [0.94, 0.88], [0.06, 0.88]]),
  },
  {
    name: "OutOfDate",
    colour: "--busy",
    draw: (pen, size) => {
      ring(pen, size, 0.3);
      pen.beginPath();
      pen.arc(size / 2, size / 2, size * 0.34, Math.PI / 2, (3 * Math.PI) / 2);
      pen.fill();
    },
  },
  { name: "Updating", colour: "--busy", draw: (pen, size) => ring(pen, size, 0.32) },
  { name: "Unknown", colour: "--away", draw: (pen, size) => ring(pen, size, 0.22) },
  { name: "Well", colour: "--well", draw: (pen, size) => disc(pen, size, 0.32) },
];

const PLACES = new Map(MARKS.map((mark, place) => [mark.name, place]));
const UNKNOWN = PLACES.get("Unknown") as number;
const WELL = new Set(["Online", "UpToDate", "Healthy"]);

/** Return the place in `MARKS` of one axis' state. */
export function markOf(state: string): number {
  return PLACES.get(WELL.has(state) ? "Well" : state) ?? UNKNOWN;
}

const OF_ROLLOUTS: Record<string, string> = {
  Ready: "Well", Progressing: "Updating", Waiting: "OutOfDate", Unhealthy: "Error", Away: "Offline", RolledBack: "Degraded", NotReached: "Never",
  done: "Well", running: "Updating", paused: "Degraded", aborted: "Error", none: "Never",
};

/** Return the place in `MARKS` of a rollout's state, or of a device's in it. */
export function markOfRollout(state: string): number {
  return markOf(OF_ROLLOUTS[state] ?? state);
}

/** Return the mark of that name as its own small canvas would show it, for a list. */
export function colourOf(place: number): string {
  return (MARKS[place] as Mark).colour;
}
