// The grid: a canvas, on which only what has changed is drawn. A cell is a device, its mark a colour and a shape.

import { fleet } from "./fleet";
import { type Lens, MARKS } from "./marks";

const SMALLEST = 9;
const LARGEST = 30;

export interface Layout {
  cell: number;
  columns: number;
  rows: number;
}

/** Return cells as large as fit all *count* of them into that room; below the smallest, there are more rows. */
export function layOut(count: number, width: number, height: number): Layout {
  for (let cell = LARGEST; ; cell--) {
    const columns = Math.max(1, Math.floor(width / cell));
    const rows = Math.max(1, Math.ceil(count / columns));
    if (cell <= SMALLEST || rows * cell <= height) return { cell, columns, rows };
  }
}

export class Grid {
  private pen: CanvasRenderingContext2D;
  private sprites: HTMLCanvasElement | null = null;
  private layout: Layout = { cell: LARGEST, columns: 1, rows: 1 };
  private places: Int32Array = new Int32Array();
  private number: Int32Array = new Int32Array();
  private lens: Lens = "overall";
  private focus = -1;
  private dirty: Set<number> | "all" = "all";
  private isDue = false;
  private scale = 1;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.pen = canvas.getContext("2d", { alpha: false }) as CanvasRenderingContext2D;
  }

  /** Show those places in that room. */
  show(places: Int32Array, number: Int32Array, lens: Lens, width: number, height: number): Layout {
    const layout = layOut(places.length, width, height);
    const scale = Math.min(3, window.devicePixelRatio || 1);
    if (layout.cell !== this.layout.cell || scale !== this.scale) this.sprites = null;
    [this.places, this.number, this.lens, this.layout, this.scale] = [places, number, lens, layout, scale];
    const [pixelWidth, pixelHeight] = [
      Math.max(1, Math.round(layout.columns * layout.cell * scale)),
      Math.max(1, Math.round(layout.rows * layout.cell * scale)),
    ];
    if (this.canvas.width !== pixelWidth || this.canvas.height !== pixelHeight) {
      this.canvas.width = pixelWidth;
      this.canvas.height = pixelHeight;
      this.canvas.style.width = `${layout.columns * layout.cell}px`;
      this.canvas.style.height = `${layout.rows * layout.cell}px`;
    }
    this.touch(null);
    return layout;
  }

  /** Forget the colours: the theme is another. */
  recolour(): void {
    this.sprites = null;
    this.touch(null);
  }

  /** Have these places drawn anew in the next frame; null for all. */
  touch(places: readonly number[] | null): void {
    if (places === null) this.dirty = "all";
    else if (this.dirty !== "all") {
      for (const place of places) {
        const at = this.number[place] ?? -1;
        if (at >= 0) this.dirty.add(at);
      }
    }
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => this.draw());
  }

  /** Put the focus on the cell of that number; -1 for none. */
  setFocus(at: number): void {
    if (at === this.focus) return;
    if (this.dirty !== "all") {
      if (this.focus >= 0) this.dirty.add(this.focus);
      if (at >= 0) this.dirty.add(at);
    }
    this.focus = at;
    this.touch([]);
  }

  /** The number of the cell beneath a point of the canvas; -1 for none. */
  at(x: number, y: number): number {
    const { cell, columns } = this.layout;
    const column = Math.floor(x / cell);
    const at = Math.floor(y / cell) * columns + column;
    return column >= 0 && column < columns && at >= 0 && at < this.places.length ? at : -1;
  }

  private draw(): void {
    this.isDue = false;
    const begun = performance.now();
    const { cell, columns } = this.layout;
    const style = getComputedStyle(this.canvas);
    const background = style.getPropertyValue("--grid");
    const sprites = (this.sprites ??= this.makeSprites(style));
    const pen = this.pen;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = background;
    const size = Math.round(cell * this.scale);
    const step = cell * this.scale;
    const one = (at: number, isClear: boolean) => {
      const x = Math.round((at % columns) * step);
      const y = Math.round(Math.floor(at / columns) * step);
      const place = this.places[at];
      if (!isClear) pen.fillRect(x, y, size, size);
      if (place !== undefined) {
        pen.drawImage(sprites, fleet.mark(place, this.lens) * size, 0, size, size, x, y, size, size);
      }
    };
    const isWhole = this.dirty === "all" || this.dirty.size > this.places.length / 2;
    const count = isWhole ? this.places.length : (this.dirty as Set<number>).size;
    if (isWhole) {
      pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
      for (let at = 0; at < this.places.length; at++) one(at, true);
    } else for (const at of this.dirty as Set<number>) if (at < this.places.length) one(at, false);
    if (this.focus >= 0 && this.focus < this.places.length) {
      pen.strokeStyle = style.getPropertyValue("--focus");
      pen.lineWidth = Math.max(1.5, this.scale * 1.5);
      const x = Math.round((this.focus % columns) * step);
      const y = Math.round(Math.floor(this.focus / columns) * step);
      one(this.focus, false);
      pen.strokeRect(x + 1, y + 1, size - 2, size - 2);
    }
    this.dirty = new Set();
    performance.clearMeasures("harmony-draw");
    performance.measure("harmony-draw", { start: begun, end: performance.now(), detail: count });
  }

  private makeSprites(style: CSSStyleDeclaration): HTMLCanvasElement {
    const size = Math.round(this.layout.cell * this.scale);
    const made = document.createElement("canvas");
    made.width = size * MARKS.length;
    made.height = size;
    const pen = made.getContext("2d") as CanvasRenderingContext2D;
    const gap = size > 12 ? size * 0.12 : 0.5;
    MARKS.forEach((mark, place) => {
      pen.setTransform(1, 0, 0, 1, place * size + gap, gap);
      pen.fillStyle = pen.strokeStyle = style.getPropertyValue(mark.colour);
      mark.draw(pen, size - 2 * gap);
    });
    return made;
  }
}
