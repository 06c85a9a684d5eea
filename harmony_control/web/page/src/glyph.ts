// A mark beside its word, drawn by the same code as the grid's cells.

import { useEffect, useRef } from "preact/hooks";
import { MARKS } from "./marks";
import { html, use } from "./ui";
import { theme } from "./view";
import { signal } from "@preact/signals-core";

const SIZE = 14;
/** Counts how often the colours have changed by the system's own theme. */
const system = signal(0);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => system.value++);

export function Glyph({ mark }: { mark: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const drawn = [use(theme), use(system), mark];
  useEffect(() => {
    const node = canvas.current;
    const shown = MARKS[mark];
    if (!node || !shown) return;
    const scale = Math.min(3, window.devicePixelRatio || 1);
    node.width = node.height = Math.round(SIZE * scale);
    const pen = node.getContext("2d") as CanvasRenderingContext2D;
    pen.fillStyle = pen.strokeStyle = getComputedStyle(node).getPropertyValue(shown.colour);
    shown.draw(pen, node.width);
  }, drawn);
  return html`<canvas class="glyph" ref=${canvas} aria-hidden="true"></canvas>`;
}

export { system };
